//! Restoring counters that lost data, as far as this replica had claimed of them: each by itself,
//! whatever it is called and wherever it is. What that means is `lease::loss`, how a loss is found out `epoch`.

use futures_util::future::join_all;
use redis::Script;
use tokio::time::Instant;

use crate::lease::loss::Restoration;
use crate::store::error::StoreError;
use crate::store::redis::Redis;
use crate::store::redis::connection::asking::Way;
use crate::store::redis::connection::refusal::classify;
use crate::store::redis::topology::part::Call;
use crate::store::redis::topology::slots::{number_at, slot_of};

/// The script that restores a counter.
pub fn script() -> Script {
    Script::new(include_str!("restore.lua"))
}

impl Redis {
    /// Restores each counter, as far as this replica had claimed of it; where each stands.
    pub(in crate::store::redis) async fn restore_claimed(
        &self,
        restorations: &[Restoration],
    ) -> Vec<Result<u64, StoreError>> {
        join_all(restorations.iter().map(|restoration| self.restore_one(restoration))).await
    }

    async fn restore_one(&self, restoration: &Restoration) -> Result<u64, StoreError> {
        let deadline = Instant::now() + self.settings.call_budget;
        let key = || self.key(&restoration.hit);
        let restore = |way| self.restore_over(way, restoration);
        self.servers_of(&restoration.hit).call(key, Call::Look, deadline, restore).await
    }

    async fn restore_over(
        &self,
        mut connection: Way,
        Restoration { hit, taken, .. }: &Restoration,
    ) -> Result<u64, StoreError> {
        let counter = self.key(hit);
        let mut call = self.restoring.prepare_invoke();
        call.key(&counter).key(granted_key(&counter));
        call.arg(self.life.name()).arg(hit.amount).arg(*taken);
        call.arg(self.ttl(hit, self.clock.now()));
        call.invoke_async(&mut connection).await.map_err(classify)
    }
}

/// The name of the hash of what replicas were granted of a counter. In a cluster it has its home
/// where the counter has, as scripts want it.
fn granted_key(counter: &[u8]) -> Vec<u8> {
    let home = slot_of(counter);
    let by_its_tag = [counter, b"|granted"].concat();
    if slot_of(&by_its_tag) == home {
        return by_its_tag;
    }
    let as_a_tag = [b"{", counter, b"}|granted"].concat();
    if slot_of(&as_a_tag) == home {
        return as_a_tag;
    }
    // What stands in the braces must end with the first closing one, and this name has one.
    [b"{", number_at(home).to_string().as_bytes(), b"}", counter, b"|granted"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_granted_is_kept_beside_the_counter() {
        for (counter, expected) in [
            ("{4:edge6:tenant4:acme}|m9", Some("{4:edge6:tenant4:acme}|m9|granted")),
            ("edge_tenant_acme_60", Some("{edge_tenant_acme_60}|granted")),
            ("edge_tenant_{_60", Some("{edge_tenant_{_60}|granted")),
            ("edge_tenant_}_60", None),
            ("edge_tenant_{}_60", None),
            ("", None),
        ] {
            let granted = granted_key(counter.as_bytes());
            assert_eq!(slot_of(&granted), slot_of(counter.as_bytes()), "{counter}");
            let text = String::from_utf8(granted).expect("text");
            assert!(text.contains(counter), "{text}");
            assert!(expected.is_none_or(|expected| text == expected), "{text}");
        }
    }
}
