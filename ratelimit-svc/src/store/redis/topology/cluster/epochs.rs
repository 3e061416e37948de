//! Which data each primary of a cluster holds: by a key in one of its slots, see `loss`.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;

use super::{Cluster, Map, Node};
use crate::lease::loss::Whose;
use crate::store::error::StoreError;
use crate::store::redis::loss::epoch::Epochs;
use crate::store::redis::topology::part::Call;
use crate::store::redis::topology::slots::slot_of;

impl Cluster {
    /// Reads which data each node holds that is in reach.
    ///
    /// # Errors
    /// When one of those did not say.
    pub async fn read_epochs(&self) -> Result<(), StoreError> {
        let map = self.map.load_full();
        let reads = map.nodes.iter().map(async |node| match node.connection(Call::Look) {
            Ok((mut connection, _)) => self.read_epoch(&mut connection, &map, node).await,
            Err(_) => Ok(()),
        });
        let read = join_all(reads).await;
        let keys: HashSet<String> =
            map.nodes.iter().filter_map(|node| node.mark(&map, &self.marks.key_prefix)).collect();
        self.marks.epochs.retain(|key| keys.contains(key));
        read.into_iter().collect()
    }

    pub(super) async fn read_epoch(
        &self,
        connection: &mut MultiplexedConnection,
        map: &Arc<Map>,
        node: &Arc<Node>,
    ) -> Result<(), StoreError> {
        let prefix = self.marks.key_prefix.clone();
        let Some(key) = node.mark(map, &prefix) else { return Ok(()) };
        let (map, node) = (map.clone(), node.clone());
        let whose =
            Whose::new(move |hit| map.has(&node, slot_of(&[prefix.as_bytes(), &hit.key].concat())));
        self.marks.epochs.read(connection, key, whose).await
    }
}

impl Node {
    /// The key that marks its data.
    fn mark(self: &Arc<Self>, map: &Map, key_prefix: &str) -> Option<String> {
        Epochs::key(key_prefix, |slot| map.has(self, slot))
    }
}
