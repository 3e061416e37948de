//! The wire types of Envoy's APIs that Tidegate speaks.
//!
//! This is the only crate that names `envoy-types`: the others import these modules, so the
//! generated code (some 90,000 lines) is compiled once and can be replaced in one place.
//! There is no logic here beyond descriptions of the same types.

pub mod descriptors;

pub use envoy_types::ext_authz;
pub use envoy_types::pb;
