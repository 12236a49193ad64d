//! Header compression: RFC 7541.

use super::*;

const COMPRESSION: Verdict = ConnectionError(&[code::COMPRESSION_ERROR]);

/// `:method: GET`, `:scheme: http`, `:path: /` by their numbers in the static table, and `:authority` as it is.
const INDEXED: [u8; 8] = [0x82, 0x86, 0x84, 0x41, 0x03, b'a', b'p', b'p'];

fn headers(block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, block)
}

fn with(more: &[u8]) -> Vec<u8> {
    headers(&[&INDEXED, more].concat())
}

#[tokio::test]
async fn generic_5_every_representation() {
    let cases = vec![
        case("generic 5 1 indexed", [headers(&INDEXED)], Answered(1)),
        // The name is number 58 of the static table, `user-agent`.
        case("generic 5 2 literal with indexing, name indexed", [with(&[0x7a, 1, b'x'])], Answered(1)),
        case("generic 5 3 literal with indexing", [with(&[0x40, 1, b'x', 1, b'y'])], Answered(1)),
        case("generic 5 4 literal without indexing, name indexed", [with(&[0x0f, 0x2b, 1, b'x'])], Answered(1)),
        case("generic 5 5 literal without indexing", [with(&[0x00, 1, b'x', 1, b'y'])], Answered(1)),
        case("generic 5 6 literal never indexed, name indexed", [with(&[0x1f, 0x2b, 1, b'x'])], Answered(1)),
        case("generic 5 7 literal never indexed", [with(&[0x10, 1, b'x', 1, b'y'])], Answered(1)),
        case("generic 5 8 a new table size", [headers(&[&[0x20][..], &INDEXED].concat())], Answered(1)),
        case("generic 5 9 two new table sizes", [headers(&[&[0x20, 0x3f, 0x00][..], &INDEXED].concat())], Answered(1)),
        case("generic 5 10 Huffman", [with(&[0x40, 0x81, 0xf3, 0x81, 0xf5])], Answered(1)),
        case("generic 5 11 by the dynamic table", [with(&[0x40, 1, b'x', 1, b'y', 0xbe])], Answered(1)),
    ];
    play(App::Asked, cases).await;
}

#[tokio::test]
async fn what_cannot_be_decompressed_ends_the_connection() {
    let cases = vec![
        case("2.3.3 1 an index that is nowhere", [with(&[0xc6])], COMPRESSION),
        case("2.3.3 2 a name's index that is nowhere", [with(&[0x7f, 0x07, 1, b'x'])], COMPRESSION),
        case("4.2 1 a new table size at the end of a block", [with(&[0x20])], COMPRESSION),
        case(
            "5.1 a number that does not end",
            [with(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])],
            COMPRESSION,
        ),
        // "x" and "y" are 1111001 and 1111010; a string ends in ones, fewer than eight.
        case("5.2 1 padding of more than seven bits", [with(&[0x00, 1, b'x', 0x82, 0xf5, 0xff])], COMPRESSION),
        case("5.2 2 padding of zeros", [with(&[0x00, 1, b'x', 0x81, 0xf4])], COMPRESSION),
        case(
            "5.2 3 the end of string within one",
            [with(&[0x00, 1, b'x', 0x85, 0xf5, 0xff, 0xff, 0xff, 0xff])],
            COMPRESSION,
        ),
        case("6.1 1 index 0", [with(&[0x80])], COMPRESSION),
        case(
            "6.3 1 a larger table than SETTINGS allow",
            [headers(&[&[0x3f, 0xe2, 0x1f][..], &INDEXED].concat())],
            COMPRESSION,
        ),
    ];
    play(App::LeftAlone, cases).await;
}
