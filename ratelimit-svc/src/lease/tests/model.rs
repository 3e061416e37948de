//! All schedules of a small model.
