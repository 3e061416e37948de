//! ratelimit-svc
