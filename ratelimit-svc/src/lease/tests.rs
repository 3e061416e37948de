//! Leases under test.
