//! What this machine allows, found by trying.
