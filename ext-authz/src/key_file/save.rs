//! Replacing a file as a whole: whoever reads it sees the old text or the new one, never a part.
//! The new file is as readable as the old one, with its owner, group and mode: a service that
//! could not read it would keep the keys it has, revoked ones too.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// The permissions of a keys file that did not exist before.
const NEW_FILE_MODE: u32 = 0o640;

/// The permissions of a file that is not yet whose it is to be.
const UNFINISHED_MODE: u32 = 0o600;

/// Reads, changes and replaces a file while no other process of this program does. `change` gets
/// the present text, or nothing where there is no file; when it fails, nothing is written.
///
/// # Errors
/// The error of `change`, or of reading and writing.
pub fn update<E: From<io::Error>>(
    path: &Path,
    change: impl FnOnce(Option<&str>) -> Result<String, E>,
) -> Result<(), E> {
    // A rename over a link would replace the link, so the file behind it is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    // The directory is the lock: it outlives every rename, and leaves nothing behind.
    let lock = File::open(&directory)?;
    lock.lock()?;
    let present = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let text = change(present.as_deref())?;
    let old = match present {
        Some(_) => Some(fs::metadata(&path)?),
        None => None,
    };
    replace(&path, &directory, &text, old.as_ref())?;
    // The rename itself must survive a crash.
    lock.sync_all()?;
    Ok(())
}

fn replace(path: &Path, directory: &Path, text: &str, old: Option<&Metadata>) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let new = directory.join(format!(".{}.{}.new", name.display(), std::process::id()));
    // Left over from a process of the same id that was killed here.
    let _ = fs::remove_file(&new);
    let written = (|| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(UNFINISHED_MODE).open(&new)?;
        if let Some(old) = old {
            keep_owner(&file, old)?;
        }
        // After the owner, whose change may take bits away.
        let mode = old.map_or(NEW_FILE_MODE, |old| old.permissions().mode());
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        // The old file is untouched; the attempt should not lie about.
        let _ = fs::remove_file(&new);
    }
    written
}

/// Gives a new file the owner and the group of the old one.
fn keep_owner(file: &File, old: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    let changed = |new: u32, old: u32| (new != old).then_some(old);
    let (owner, group) = (changed(new.uid(), old.uid()), changed(new.gid(), old.gid()));
    if owner.is_none() && group.is_none() {
        return Ok(());
    }
    fchown(file, owner, group).map_err(|error| {
        let (owner, group) = (old.uid(), old.gid());
        let message =
            format!("the file would not stay with user {owner} and group {group}: {error}");
        io::Error::new(error.kind(), message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_behind_a_link_is_replaced_and_keeps_its_mode() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (file, link) = (dir.path().join("keys.yaml"), dir.path().join("link.yaml"));
        fs::write(&file, "old").expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).expect("changed");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        update(&link, |text| io::Result::Ok(format!("{}+new", text.unwrap_or("none"))))
            .expect("updated");
        assert_eq!(fs::read_to_string(&file).expect("read"), "old+new");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        let mode = fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o604);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 2, "nothing left behind");
    }

    /// Changes the owner of files as root does; anybody else has only one to give.
    fn is_root(dir: &Path) -> bool {
        fs::metadata(dir).expect("there").uid() == 0
    }

    #[test]
    fn a_file_stays_whose_it_is() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("keys.yaml");
        fs::write(&file, "old").expect("written");
        if is_root(dir.path()) {
            std::os::unix::fs::chown(&file, Some(4242), Some(4343)).expect("given away");
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("changed");
        let seen = || {
            let metadata = fs::metadata(&file).expect("there");
            (metadata.uid(), metadata.gid(), metadata.permissions().mode() & 0o7777)
        };
        let before = seen();
        update(&file, |_| io::Result::Ok("new".to_owned())).expect("updated");
        assert_eq!((seen(), fs::read_to_string(&file).expect("read").as_str()), (before, "new"));
    }

    #[test]
    fn a_new_file_is_for_its_owner_and_group() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("keys.yaml");
        update(&file, |_| io::Result::Ok("new".to_owned())).expect("written");
        let mode = fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, NEW_FILE_MODE);
    }

    #[test]
    fn a_refused_change_writes_nothing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("keys.yaml");
        let refused = update(&file, |text| {
            assert_eq!(text, None);
            Err(io::Error::other("no"))
        });
        assert!(refused.is_err() && !file.exists());
    }

    #[test]
    fn concurrent_updates_all_count() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("keys.yaml");
        fs::write(&file, "").expect("written");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    update(&file, |text| io::Result::Ok(format!("{}x", text.unwrap_or(""))))
                        .expect("updated");
                });
            }
        });
        assert_eq!(fs::read_to_string(&file).expect("read"), "xxxxxxxx");
    }
}
