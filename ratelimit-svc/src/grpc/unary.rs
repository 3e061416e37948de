//! One gRPC call with one message each way: what tonic's server does for it, without what it does
//! for streams and compression. Decides nothing and knows no message.
//!
//! ```text
//! request   │ compressed? u8 │ length u32 │ message │
//! answer    │ compressed? u8 │ length u32 │ message │ trailers: grpc-status
//! ```

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response};
use tonic::codegen::StdError;
use tonic::{Status, body::Body as TonicBody};

/// Bytes before a message.
const PREFIX_BYTES: usize = 5;
/// What most answers take; the buffer of a longer one grows.
const ANSWER_BYTES: usize = 128;
/// Names what a request is compressed with.
const ENCODING: &str = "grpc-encoding";

/// The only message of a request.
///
/// # Errors
/// When it is compressed, has more than `bytes_max`, does not come whole, or is not the only one.
pub async fn read<B>(request: Request<B>, bytes_max: usize) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes>,
    B::Error: Into<StdError>,
{
    if let Some(encoding) = request.headers().get(ENCODING)
        && encoding != "identity"
    {
        return Err(Status::unimplemented("requests must not be compressed"));
    }
    let mut body = pin!(request.into_body());
    let mut read = Bytes::new();
    // A message that comes in parts is put together here.
    let mut parts = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        // Trailers of a request say nothing.
        let Ok(data) = frame.into_data() else { continue };
        if read.is_empty() {
            read = data;
        } else {
            if parts.is_empty() {
                parts.extend_from_slice(&read);
            }
            parts.extend_from_slice(&data);
        }
        let so_far = if parts.is_empty() { &*read } else { &parts };
        if so_far.len() > expected(so_far, bytes_max)?.unwrap_or(PREFIX_BYTES) {
            return Err(Status::internal("more than one message in a request"));
        }
    }
    let whole = if parts.is_empty() { read } else { parts.into() };
    match expected(&whole, bytes_max)? {
        Some(bytes) if bytes == whole.len() => Ok(whole.slice(PREFIX_BYTES..)),
        None if whole.is_empty() => Err(Status::internal("no message in the request")),
        _ => Err(Status::internal("the request ends within its message")),
    }
}

/// How long prefix and message are, once that is known.
fn expected(read: &[u8], bytes_max: usize) -> Result<Option<usize>, Status> {
    let Some((&[compressed, a, b, c, d], _)) = read.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    if compressed != 0 {
        return Err(Status::unimplemented("requests must not be compressed"));
    }
    let bytes = u32::from_be_bytes([a, b, c, d]) as usize;
    if bytes > bytes_max {
        let message = format!("a message of {bytes} bytes, more than {bytes_max}");
        return Err(Status::out_of_range(message));
    }
    Ok(Some(PREFIX_BYTES + bytes))
}

/// An answer of one message, which `write` appends.
pub fn answer(write: impl FnOnce(&mut Vec<u8>)) -> Response<TonicBody> {
    let mut framed = Vec::with_capacity(ANSWER_BYTES);
    framed.resize(PREFIX_BYTES, 0);
    write(&mut framed);
    let bytes = u32::try_from(framed.len() - PREFIX_BYTES).expect("answers are far below 4 GiB");
    framed[1..PREFIX_BYTES].copy_from_slice(&bytes.to_be_bytes());
    let mut response = Response::new(TonicBody::new(Answer::Message(framed.into())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// What is still to be sent.
enum Answer {
    Message(Bytes),
    Trailers,
    Nothing,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (frame, next) = match std::mem::replace(&mut *self, Self::Nothing) {
            Self::Message(bytes) => (Frame::data(bytes), Self::Trailers),
            Self::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
                (Frame::trailers(trailers), Self::Nothing)
            }
            Self::Nothing => return Poll::Ready(None),
        };
        *self = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tonic::Code;

    use super::*;

    /// A body in these frames.
    struct Frames(VecDeque<Bytes>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }
    }

    async fn read_frames(frames: &[&[u8]], bytes_max: usize) -> Result<Vec<u8>, Code> {
        let frames = frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect();
        let read = read(Request::new(Frames(frames)), bytes_max).await;
        read.map(|message| message.to_vec()).map_err(|status| status.code())
    }

    #[tokio::test]
    async fn a_message_comes_whole_or_in_parts() {
        let whole = [0, 0, 0, 0, 4, b'a', b'b', b'c', b'd'];
        assert_eq!(read_frames(&[&whole], 4).await, Ok(b"abcd".to_vec()));
        for cut in 0..whole.len() {
            let (a, b) = whole.split_at(cut);
            assert_eq!(read_frames(&[a, &[], b], 4).await, Ok(b"abcd".to_vec()), "{cut}");
        }
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(read_frames(&bytes, 4).await, Ok(b"abcd".to_vec()));
        assert_eq!(read_frames(&[&[0; 5]], 4).await, Ok(vec![]));
    }

    #[tokio::test]
    async fn what_is_no_single_message_is_refused() {
        let whole = [0, 0, 0, 0, 4, b'a', b'b', b'c', b'd'];
        assert_eq!(read_frames(&[&whole], 3).await, Err(Code::OutOfRange));
        assert_eq!(read_frames(&[&[0, 0xff, 0xff, 0xff, 0xff]], 9).await, Err(Code::OutOfRange));
        assert_eq!(read_frames(&[&[1, 0, 0, 0, 0]], 9).await, Err(Code::Unimplemented));
        assert_eq!(read_frames(&[&whole, &whole], 9).await, Err(Code::Internal));
        for cut in 0..whole.len() {
            assert_eq!(read_frames(&[&whole[..cut]], 9).await, Err(Code::Internal), "{cut}");
        }
        let compressed = Request::builder().header(ENCODING, "gzip");
        let compressed = compressed.body(Frames(VecDeque::new())).expect("a request");
        let refused = read(compressed, 9).await.expect_err("refused");
        assert_eq!(refused.code(), Code::Unimplemented);
    }

    #[tokio::test]
    async fn an_answer_is_a_message_and_a_status() {
        let response = answer(|out| out.extend_from_slice(b"abc"));
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        let mut body = pin!(response.into_body());
        let mut next = async || {
            std::future::poll_fn(|cx| body.as_mut().poll_frame(cx))
                .await
                .map(|frame| frame.expect("ok"))
        };
        let data = next().await.and_then(|frame| frame.into_data().ok());
        assert_eq!(data.as_deref(), Some(&[0, 0, 0, 0, 3, b'a', b'b', b'c'][..]));
        let trailers = next().await.and_then(|frame| frame.into_trailers().ok());
        assert_eq!(trailers.expect("trailers")[Status::GRPC_STATUS], "0");
        assert!(next().await.is_none());
    }
}
