#define GREETING "hello from a small image"
