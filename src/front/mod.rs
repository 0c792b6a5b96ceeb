//! The user's side: bases and blobs, the engine's process, the messages between the two.
