//! Request bodies that leave nothing in the connection's read buffer.
//!
//! The HTTP/2 library cuts each piece of a body out of the one buffer that it reads a connection
//! into, and that buffer lives as long as the connection does: the last face that came in would lie
//! there until other requests have filled it. So each piece is copied as it passes, into memory
//! that is wiped when freed ([`crate::memory`]), and overwritten where it was.
//!
//! # Not here
//! What TLS decrypted before HTTP/2 saw it: up to one record, 16 KiB, in rustls's own buffer.

#![expect(unsafe_code, reason = "no safe call writes into bytes that were handed out for reading")]

use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::codegen::Bytes;

/// `body`, with each piece moved out of the buffer that it arrived in. Only for bodies that
/// HTTP/2 reads from a connection.
pub(super) fn moved_out(body: Body) -> Body {
    Body::new(body.map_frame(|frame| frame.map_data(move_out)))
}

fn move_out(piece: Bytes) -> Bytes {
    let copy = Bytes::copy_from_slice(&piece);
    let (address, len) = (piece.as_ptr().addr(), piece.len());
    let start = std::ptr::with_exposed_provenance_mut::<u8>(address);
    // SAFETY: `piece` was split off the read buffer by h2, which hands each DATA frame's payload
    // out once and keeps no handle to it; the body passed it on to here by value. So this is the
    // only handle to these `len` bytes, and the one reference to them, made for the copy, is over.
    // The other handles to the same allocation, the buffer's rest and pieces before and after,
    // cover other bytes. `piece` keeps the allocation alive until the end of this function. The
    // memory is writable and its provenance exposed: it is a block of the heap, from `malloc`, for
    // h2 reads into a `BytesMut` and makes no body of static bytes.
    unsafe { start.write_bytes(0, len) };
    // SAFETY: initialised bytes of `piece`, as above. The barrier reads them, as far as the
    // compiler knows, so that it cannot leave the write out.
    zeroize::optimization_barrier(unsafe { std::slice::from_raw_parts(start, len) });
    drop(piece);
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_copied_and_its_neighbours_stay() {
        // As h2 does it: one buffer, cut into pieces.
        let mut buffer = Bytes::from(b"before, the face, after".to_vec());
        let before = buffer.split_to(8);
        let piece = buffer.split_to(8);
        let place = piece.as_ptr();
        assert_eq!(&move_out(piece)[..], b"the face");
        assert_eq!((&before[..], &buffer[..]), (&b"before, "[..], &b", after"[..]));
        // SAFETY: inside the allocation that `before` and `buffer` keep alive.
        let left = unsafe { std::slice::from_raw_parts(place, 8) };
        assert_eq!(left, [0; 8]);
    }
}
