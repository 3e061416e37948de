//! One slot, step by step.
