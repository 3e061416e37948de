//! ext-authz
