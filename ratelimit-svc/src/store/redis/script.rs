//! What Redis decides in the step that counts: the scripts, and how calls and answers are written.

pub mod packed;
pub mod settle;
