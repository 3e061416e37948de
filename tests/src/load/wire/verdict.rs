//! What gRPC answers say, read without building them. Not a protobuf library: of an answer one field
//! is looked for.

use super::{Fault, Verdict};

/// What a `RateLimitResponse` says: `overall_code` is field 1.
pub(super) fn rate_limit(message: &[u8]) -> Result<Verdict, Fault> {
    match find(message, 1) {
        Some(Field::Number(1)) => Ok(Verdict::Admitted),
        Some(Field::Number(2)) => Ok(Verdict::Refused),
        _ => Err(Fault::Message("RateLimitResponse with a code")),
    }
}

/// What a `CheckResponse` says: `status` is field 1, and its `code` field 1 of that.
pub(super) fn check(message: &[u8]) -> Result<Verdict, Fault> {
    let Some(Field::Bytes(status)) = find(message, 1) else {
        return Err(Fault::Message("CheckResponse with a status"));
    };
    match find(status, 1) {
        None | Some(Field::Number(0)) => Ok(Verdict::Admitted),
        // PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAUTHENTICATED: somebody decided.
        Some(Field::Number(7 | 8 | 16)) => Ok(Verdict::Refused),
        Some(Field::Number(code)) => Err(Fault::Grpc(code as u32)),
        Some(Field::Bytes(_)) => Err(Fault::Message("CheckResponse with a code")),
    }
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The first field of that number.
fn find(mut message: &[u8], number: u64) -> Option<Field<'_>> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut message)?),
            1 => Field::Bytes(take(&mut message, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                Field::Bytes(take(&mut message, length)?)
            }
            5 => Field::Bytes(take(&mut message, 4)?),
            _ => return None,
        };
        if tag >> 3 == number {
            return Some(field);
        }
    }
    None
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let bytes = message.get(..length)?;
    *message = &message[length..];
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::pb::envoy::service::auth::v3::CheckResponse;
    use proto::pb::envoy::service::ratelimit::v3::RateLimitResponse;
    use proto::pb::google::rpc::Status;

    use super::*;

    #[test]
    fn answers_are_read_as_the_real_types_write_them() {
        let of_rate_limit = |code| {
            let response = RateLimitResponse { overall_code: code, ..Default::default() };
            rate_limit(&response.encode_to_vec())
        };
        assert_eq!(of_rate_limit(1), Ok(Verdict::Admitted));
        assert_eq!(of_rate_limit(2), Ok(Verdict::Refused));
        assert!(of_rate_limit(0).is_err());
        let of_check = |code| {
            let status = Status { code, message: "x".to_owned(), ..Default::default() };
            let response = CheckResponse { status: Some(status), ..Default::default() };
            check(&response.encode_to_vec())
        };
        assert_eq!(of_check(0), Ok(Verdict::Admitted));
        assert_eq!(of_check(16), Ok(Verdict::Refused));
        assert_eq!(of_check(14), Err(Fault::Grpc(14)));
        assert!(check(b"").is_err());
        assert!(check(&[0x0a, 0x7f]).is_err());
    }
}
