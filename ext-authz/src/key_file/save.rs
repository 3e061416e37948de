//! Replacing a file as a whole: whoever reads it sees the old text or the new one, never a part.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The permissions of a keys file that did not exist before.
const NEW_FILE_MODE: u32 = 0o640;

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
    let mode = match fs::metadata(&path) {
        Ok(metadata) => metadata.permissions().mode(),
        Err(_) => NEW_FILE_MODE,
    };
    replace(&path, &directory, &text, mode)?;
    // The rename itself must survive a crash.
    lock.sync_all()?;
    Ok(())
}

fn replace(path: &Path, directory: &Path, text: &str, mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let new = directory.join(format!(".{}.{}.new", name.display(), std::process::id()));
    // Left over from a process of the same id that was killed here.
    let _ = fs::remove_file(&new);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
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
