//! Order, cache decisions, events.
