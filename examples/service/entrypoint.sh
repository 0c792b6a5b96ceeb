#!/bin/sh
exec httpd -f -p "127.0.0.1:${PORT:-80}" -h /app
