//! One table, step by step.
