//! Who may see what: the `QUOTA_VIEW_` variables and `CONSOLE_TOKEN`.

use chassis::process::UsageError;

use super::Vars;
use crate::console::access::Access;
use crate::decide::standing::ViewSettings;

/// The most keys of `QUOTA_VIEW_KEYS`.
const KEYS_MAX: usize = 16;

/// The shortest `CONSOLE_TOKEN`.
const TOKEN_BYTES_MIN: usize = 16;

impl Vars<'_> {
    pub(super) fn console(&self) -> Result<Access, UsageError> {
        let token = self.text("CONSOLE_TOKEN");
        if !token.is_empty() && token.len() < TOKEN_BYTES_MIN {
            // The token itself is never shown.
            let message = format!("CONSOLE_TOKEN: must have at least {TOKEN_BYTES_MIN} bytes");
            return Err(UsageError(message));
        }
        Ok(Access::new(&token))
    }

    pub(super) fn view(&self) -> Result<Option<ViewSettings>, UsageError> {
        let keys = self.text("QUOTA_VIEW_KEYS");
        let keys = keys.split(',').map(str::trim).filter(|key| !key.is_empty());
        let keys: Vec<String> = keys.map(str::to_owned).collect();
        if keys.is_empty() || keys.len() > KEYS_MAX {
            let message = format!("must be from 1 to {KEYS_MAX} keys with commas between them");
            return Err(self.bad("QUOTA_VIEW_KEYS", message));
        }
        let domain = self.text("QUOTA_VIEW_DOMAIN");
        Ok((!domain.is_empty()).then_some(ViewSettings { domain, keys }))
    }
}
