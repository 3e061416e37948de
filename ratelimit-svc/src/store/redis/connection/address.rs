//! Where a server is and how to log in: values that connections are made of.

use std::fmt;
use std::path::PathBuf;

/// A host and a port.
pub type HostPort = (String, u16);

/// Where a server is.
#[derive(Clone, Debug)]
pub enum Address {
    /// At a port.
    Tcp(HostPort),
    /// At a socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp((host, port)) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp((host, port)) => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// User and password, either of which may be absent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// An ACL user.
    pub user: Option<String>,
    /// Its password, or that of the default user.
    pub password: Option<String>,
}

// Passwords stay out of logs.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}
