//! The bodies of writes, compressed.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// A larger body is compressed on a thread of its own: it takes some milliseconds, in which the
/// runtime's threads have lanes and admin pages to serve. The gate bounds how many at once.
pub const INLINE_BYTES_MAX: usize = 16 << 10;

/// At the lowest level, which costs the least.
pub(super) async fn gzip(body: Bytes) -> std::io::Result<Bytes> {
    if body.len() <= INLINE_BYTES_MAX {
        return compressed(&body);
    }
    let task = tokio::task::spawn_blocking(move || compressed(&body));
    task.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

fn compressed(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    Ok(Bytes::from(encoder.finish()?))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_large_body_leaves_the_thread_to_others() {
        for (length, at_once) in [(INLINE_BYTES_MAX, true), (8 << 20, false)] {
            let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let mut compressing = Box::pin(gzip(Bytes::from(body.clone())));
            let first = compressing.as_mut().now_or_never();
            assert_eq!(first.is_some(), at_once, "{length} bytes");
            let compressed = match first {
                Some(compressed) => compressed,
                None => compressing.await,
            };
            let mut back = Vec::new();
            let compressed = compressed.expect("memory takes it");
            flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut back).expect("gzip");
            assert_eq!(back, body);
        }
    }
}
