//! The API keys of an edge: in a file or in Redis, changed by the commands of ext-authz.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Edge, service};
use crate::wait::{DEADLINE, wait_for};

impl Edge {
    /// Puts the keys of the file into Redis, where keys are there: an ext-authz is not ready before
    /// somebody has said which keys there are, and be it none.
    pub(super) fn load_keys(&self) -> Result<()> {
        if self.options.keys_in_redis {
            let file = self.keys_file();
            self.keys_command(&["load", &file.to_string_lossy()])?;
        }
        Ok(())
    }

    /// Issues a key for a tenant and puts its record into the key file; returns the key.
    ///
    /// # Errors
    /// When ext-authz refuses.
    pub fn issue_key(&self, tenant: &str, priority: &str) -> Result<String> {
        let printed =
            self.keys_command(&["issue", "--append", "--tenant", tenant, "--priority", priority])?;
        let key = printed.trim().to_owned();
        if !key.starts_with("tdg_") {
            bail!("ext-authz keys issue printed no key");
        }
        Ok(key)
    }

    /// Runs a command of `ext-authz keys` on the configuration of this edge; returns what it prints.
    ///
    /// # Errors
    /// When it does not succeed.
    pub fn keys_command(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(service("ext-authz")?);
        command.arg("keys").args(args).arg("--config").arg(self.authz_config());
        let output = command.output()?;
        if !output.status.success() {
            let refused = String::from_utf8_lossy(&output.stderr);
            bail!("ext-authz keys {}: {}", args.join(" "), refused.trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Issues a key and waits until the edge accepts it.
    ///
    /// # Errors
    /// When it is not accepted in time.
    pub async fn issue_live_key(&self, tenant: &str, priority: &str) -> Result<String> {
        let key = self.issue_key(tenant, priority)?;
        self.wait_for_key(&key).await?;
        Ok(key)
    }

    /// Waits until every ext-authz knows a key, without spending any of its quota.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn wait_for_key(&self, key: &str) -> Result<()> {
        let id = key.split('_').nth(2).context("a key has an id")?.to_owned();
        for replica in &self.authz {
            let tls = self.client_of_services();
            let authz = crate::parts::authz::Authz::connect(replica.listen, tls.as_ref()).await?;
            wait_for(&format!("{} to know key {id}", replica.name()), DEADLINE, async || {
                authz.clone().allows(key).await.ok().filter(|allowed| *allowed)
            })
            .await?;
        }
        Ok(())
    }

    /// The file that keys are read from.
    pub fn keys_file(&self) -> PathBuf {
        self.options.dir.join("keys.yaml")
    }
}
