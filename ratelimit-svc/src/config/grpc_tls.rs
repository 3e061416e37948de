//! The variables of threads and TLS on the gRPC listener.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use chassis::grpc::workers_default;
use chassis::process::UsageError;
use chassis::tls::client::ClientSettings;
use chassis::tls::{ServerSettings, subjects};

use super::Vars;

/// More threads than any machine has use for.
pub const WORKER_THREADS_MAX: usize = 256;

impl Vars<'_> {
    pub(super) fn grpc_workers(&self) -> Result<NonZeroUsize, UsageError> {
        let name = "GRPC_WORKER_THREADS";
        if self.text(name).is_empty() {
            return Ok(workers_default());
        }
        let threads: NonZeroUsize = self.number(name)?;
        match threads.get() <= WORKER_THREADS_MAX {
            true => Ok(threads),
            false => Err(self.bad(name, format!("must be from 1 to {WORKER_THREADS_MAX}"))),
        }
    }

    pub(super) fn grpc_tls(&self) -> Result<Option<ServerSettings>, UsageError> {
        if !self.flag("GRPC_SERVER_USE_TLS")? {
            return Ok(None);
        }
        // The second is what Envoy Gateway sets.
        let client_authorities =
            self.path("GRPC_CLIENT_TLS_CACERT").or_else(|| self.path("GRPC_SERVER_TLS_CA_CERT"));
        let client_subjects = subjects(&self.text("GRPC_CLIENT_TLS_SAN"));
        let client_subjects =
            client_subjects.map_err(|problem| self.bad("GRPC_CLIENT_TLS_SAN", problem))?;
        for name in ["GRPC_CLIENT_TLS_SAN", "GRPC_CLIENT_TLS_SAN_FILE"] {
            let is_verified = client_authorities.is_some()
                || !self.text("GRPC_SERVER_TLS_WORKLOAD_API").is_empty();
            if !self.text(name).is_empty() && !is_verified {
                // Without an authority anyone could make a certificate with this name.
                return Err(self.bad(name, "needs GRPC_CLIENT_TLS_CACERT"));
            }
        }
        let client_subjects_file = self.path("GRPC_CLIENT_TLS_SAN_FILE");
        let name = "GRPC_SERVER_TLS_WORKLOAD_API";
        let address = self.text(name);
        if !address.is_empty() {
            if client_subjects.is_empty() && client_subjects_file.is_none() {
                // Everybody in the trust domain has a certificate.
                return Err(self.bad(name, "needs GRPC_CLIENT_TLS_SAN or GRPC_CLIENT_TLS_SAN_FILE"));
            }
            let settings = ServerSettings::by_workload_api(&address).ok_or_else(|| {
                self.bad(name, "must be a socket as unix:///run/spire/agent.sock")
            })?;
            return Ok(Some(ServerSettings { client_subjects, client_subjects_file, ..settings }));
        }
        let needed = |name| {
            let problem = || self.bad(name, "is needed when GRPC_SERVER_USE_TLS is true");
            self.path(name).ok_or_else(problem)
        };
        Ok(Some(ServerSettings {
            certificate: needed("GRPC_SERVER_TLS_CERT")?,
            key: needed("GRPC_SERVER_TLS_KEY")?,
            client_authorities,
            client_subjects,
            client_subjects_file,
            workload_api: None,
        }))
    }

    /// The socket of a Workload API, if one is set: it sends what files would hold otherwise.
    pub(super) fn workload_api(
        &self,
        name: &str,
        has_identity: bool,
    ) -> Result<Option<String>, UsageError> {
        let address = self.text(name);
        if address.is_empty() {
            return Ok(None);
        }
        if has_identity {
            return Err(self.bad(name, "is in place of a certificate and its key"));
        }
        match ClientSettings::by_workload_api(&address) {
            Some(_) => Ok(Some(address)),
            None => Err(self.bad(name, "must be a socket as unix:///run/spire/agent.sock")),
        }
    }

    /// A client by a Workload API, or by these files.
    pub(super) fn client_tls(
        &self,
        name: &str,
        files: ClientSettings,
    ) -> Result<ClientSettings, UsageError> {
        let address = self.workload_api(name, files.identity.is_some())?;
        let Some(sent) = address.as_deref().and_then(ClientSettings::by_workload_api) else {
            return Ok(files);
        };
        let authorities = files.authorities.or(sent.authorities);
        let ClientSettings { server_name, server_subjects, .. } = files;
        Ok(ClientSettings { authorities, server_name, server_subjects, ..sent })
    }

    /// A path, if one is set.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.text(name)).filter(|path| !path.is_empty()).map(PathBuf::from)
    }
}
