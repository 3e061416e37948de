//! Following the keys files and the peppers' files: what they hold comes into force once they have
//! been still for a moment.
//!
//! What is refused is tried again though no file changes: files may not be readable for a while, as
//! when file descriptors have run out, and what clashes with the keys in Redis is good once those are
//! others. A key that was taken out must not stay in force until somebody edits the file once more.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis::config::ConfigError;
use chassis::reload;
use tokio::sync::watch;

use super::{Loaded, read, source};
use crate::check::digest::Peppers;
use crate::check::key_set::KeySet;
use crate::keys::{Keys, Origin};
use crate::source::KeySource;

/// How often the files are looked at. What was changed is read once it was still for one period,
/// so a change is seen within two of them.
pub const PERIOD: Duration = Duration::from_millis(100);
/// The first and the longest wait until what was refused is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Loads the keys and then follows their files and the peppers'. Never ends.
pub async fn follow(keys: Arc<Keys>, settings: KeySource) -> Infallible {
    let mut watches = vec![reload::Watch::new(settings.pepper_source.files())];
    watches.extend(settings.path.as_deref().map(|path| reload::Watch::new(source(path))));
    let (sender, receiver) = watch::channel(());
    let again = AtomicBool::new(false);
    let changes = async {
        loop {
            tokio::time::sleep(PERIOD).await;
            if again.swap(false, Ordering::Relaxed) {
                watches.iter_mut().for_each(reload::Watch::tell_again);
            }
            // All are asked each time.
            let changed: Vec<bool> = watches.iter_mut().map(reload::Watch::has_changed).collect();
            if changed.contains(&true) {
                // The loader lives as long as this future: both end together.
                let _ = sender.send(());
            }
        }
    };
    // The watches have looked already, so that no change falls between them and the first load.
    tokio::select! {
        never = changes => never,
        never = load_on(&keys, &settings, receiver, &again) => never,
    }
}

/// Loads what is there now, and after each change; sets `again` where that is to be told once more.
async fn load_on(
    keys: &Keys,
    settings: &KeySource,
    mut changes: watch::Receiver<()>,
    again: &AtomicBool,
) -> Infallible {
    let (mut refused, mut wait): (Option<String>, _) = (None, RETRY.0);
    loop {
        changes.mark_unchanged();
        let (source, present) = (settings.clone(), keys.of(Origin::Files));
        // A large file takes a moment to parse, and requests must not wait for it.
        let loaded = tokio::task::spawn_blocking(move || load(&source, present.as_deref()));
        let result = match loaded.await {
            Ok(Ok((hash, Some(loaded), peppers))) => keys
                .load(Origin::Files, hash, loaded, Some(peppers))
                .map_err(|error| error.to_string()),
            Ok(Ok((_, None, peppers))) => {
                keys.renew_peppers(peppers).map_err(|error| error.to_string())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => Err(panic.to_string()),
        };
        let error = result.err();
        // Said once, however often it is tried.
        if let Some(new) = error.as_ref().filter(|error| refused.as_ref() != Some(error)) {
            match settings.path {
                Some(_) => keys.refuse(Origin::Files, new),
                None => {
                    tracing::error!(error = new, "peppers were refused, those before them stay");
                }
            }
        }
        refused = error;
        let retry = async {
            match refused {
                Some(_) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        // The sender lives as long as this future: both end together.
        tokio::select! {
            _ = changes.changed() => (refused, wait) = (None, RETRY.0),
            () = retry => {
                wait = (wait * 2).min(RETRY.1);
                again.store(true, Ordering::Relaxed);
                // When the files are still.
                let _ = changes.changed().await;
            }
        }
    }
}

type Read = (u64, Option<KeySet>, Arc<Peppers>);

/// The keys of the files as they are now, their peppers, and a hash of all that they were made of.
fn load(settings: &KeySource, present: Option<&KeySet>) -> Result<Read, ConfigError> {
    let (pepper_hash, peppers) = settings.pepper_source.read()?;
    let Some(path) = &settings.path else { return Ok((pepper_hash, None, Arc::new(peppers))) };
    let Loaded { keys, hash, is_counted } =
        read(path, &peppers, &settings.priority_classes, present)?;
    let keys = keys.build();
    if let Some(present) = present
        && !is_counted
        && present.is_cut_by(&keys)
    {
        let missing = present.missing_from(&keys);
        let message = format!(
            "has {} keys and lacks {missing} of the {} in force, as a file that was cut does; if that \
             is meant, state 'count: {}' in it",
            keys.len(),
            present.len(),
            keys.len()
        );
        return Err(ConfigError::file(path, message));
    }
    Ok((hash ^ pepper_hash, Some(keys), Arc::new(peppers)))
}
