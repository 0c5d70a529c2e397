//! What holds for any bytes that come as HTTP/1, from a client or from a replica. Each function panics where it does not.
//! Used by the tests beside it and by the fuzz target `upstream_response`.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper::service::service_fn;
use serin_gateway::front::h1::written;
use serin_gateway::h1::fields::{Fields, is_hop_by_hop, is_named_by};
use serin_gateway::h1::framing::{BodyDecoder, Framing, FramingError};
use serin_gateway::h1::request::{HeadError, HeadLimits, RequestHead, take_request};
use serin_gateway::h1::response::{HEAD_BYTES_MAX, HEADERS_MAX, Head, HeadReader, ResponseError};
use serin_gateway::upstream::request::{FORWARDED_FOR, Outgoing, REQUEST_ID, RequestBody};

/// Small, so that heads over the limits are among what is tried.
const LIMITS: HeadLimits = HeadLimits { bytes: 2 << 10, fields: 30 };
/// For heads that the gateway has written: it adds a little.
const OWN_LIMITS: HeadLimits = HeadLimits { bytes: 16 << 10, fields: 40 };
/// A chunk line or trailer section that is not complete yet is never longer than this.
const LINES_MAX: usize = (16 << 10) + 1;

/// All that holds for some bytes. `sizes` are those of the pieces in which they come, again and again.
pub fn hold(bytes: &[u8], sizes: &[usize]) {
    for framing in [Framing::Chunked, Framing::Length(bytes.len() as u64 / 2), Framing::UntilClose] {
        bodies(framing, bytes, sizes);
    }
    requests(bytes, sizes);
    answers(bytes, sizes, false);
    answers(bytes, sizes, true);
}

/// A body is the same however it is cut.
pub fn bodies(framing: Framing, bytes: &[u8], sizes: &[usize]) {
    let read = |pieces: &[&[u8]]| {
        let (mut decoder, mut buffer, mut body) = (BodyDecoder::new(framing), BytesMut::new(), Vec::new());
        let mut error = None;
        for piece in pieces {
            buffer.extend_from_slice(piece);
            if error.is_none() {
                error = take_body(&mut decoder, &mut buffer, &mut body).err();
            }
        }
        let rest = if error.is_none() { buffer.to_vec() } else { Vec::new() };
        (body, decoder.is_done(), rest, error)
    };
    assert_eq!(read(&[bytes]), read(&cut(bytes, sizes)), "{framing:?}");
}

/// The requests on a connection are the same however their bytes are cut; what is accepted and written on is read again as
/// the same request, by us and by others; and hyper, where it accepts the same bytes, reads the same requests.
pub fn requests(bytes: &[u8], sizes: &[usize]) {
    let (read, end) = read_requests(&[bytes], LIMITS);
    let (pieces, pieces_end) = read_requests(&cut(bytes, sizes), LIMITS);
    assert_eq!(describe(&read), describe(&pieces));
    let too_large = HeadError::TooLarge(LIMITS.bytes);
    match (end, pieces_end) {
        // Which of its faults a head is refused for may depend on how far it was seen.
        (Some(Fault::Head(a)), Some(Fault::Head(b))) if a == too_large || b == too_large => {}
        (whole, pieces) => assert_eq!(whole, pieces),
    }
    for (head, body) in &read {
        if let Some(body) = body {
            request_is_written_as_it_was_read(head, body);
        }
    }
    if read.is_empty() {
        return;
    }
    let theirs = hyper_requests(bytes);
    for ((head, body), (parts, their_body)) in read.iter().zip(&theirs) {
        assert_eq!((&head.method, head.target.path_and_query()), (&parts.0, parts.1.as_str()));
        if let (Some(body), Some(their_body)) = (body, their_body) {
            assert_eq!(body, their_body, "{head:?}");
        }
    }
}

/// The answer on a connection is the same however its bytes are cut; what is accepted and written on is read again as the same
/// answer, by us and by others; and hyper, where it accepts the same bytes, reads the same answer.
pub fn answers(bytes: &[u8], sizes: &[usize], bodyless: bool) {
    let whole = read_answer(&[bytes], bodyless);
    let pieces = read_answer(&cut(bytes, sizes), bodyless);
    let told = |answer: &Answer| format!("{:?} {:?} {} {:?}", answer.head, answer.body, answer.complete, answer.fault);
    match (&whole.fault, &pieces.fault) {
        (Some(Fault::Answer(a)), Some(Fault::Answer(b)))
            if *a == ResponseError::HeadTooLarge || *b == ResponseError::HeadTooLarge => {}
        _ => assert_eq!(told(&whole), told(&pieces)),
    }
    let Answer { head: Some(head), body, complete: true, .. } = whole else { return };
    for length in [Some(body.len() as u64), None] {
        answer_is_written_as_it_was_read(&head, &body, length, bodyless);
    }
    if let Some((status, their_body)) = hyper_answer(bytes, bodyless) {
        assert_eq!((head.status.as_u16(), &body), (status, &their_body), "{head:?}");
    }
}

fn request_is_written_as_it_was_read(head: &RequestHead, body: &[u8]) {
    let mut pieces = RequestBody::default();
    pieces.push(Bytes::copy_from_slice(body));
    let outgoing = Outgoing {
        method: &head.method,
        path: head.target.path_and_query(),
        fields: &head.fields,
        authority: head.target.authority(),
        request_id: b"id",
        peer: "peer",
        body: &pieces,
    };
    let mut out = Vec::new();
    outgoing.write_head("replica", &mut out);
    lines_are_fields(&out);
    out.extend_from_slice(body);
    let (again, end) = read_requests(&[&out], OWN_LIMITS);
    let [(again, Some(again_body))] = &again[..] else { panic!("{again:?} {end:?} from {}", out.escape_ascii()) };
    assert_eq!(end, None);
    assert_eq!((&again.method, again_body.as_slice()), (&head.method, body));
    assert_eq!(again.target.path_and_query(), head.target.path_and_query());
    assert_eq!(again.framing, Framing::Length(body.len() as u64));
    assert_eq!(passed_on(&again.fields), passed_on(&head.fields));
    let theirs = hyper_requests(&out);
    let [((method, path), Some(their_body))] = &theirs[..] else { panic!("{theirs:?} from {}", out.escape_ascii()) };
    assert_eq!((method, path.as_str()), (&head.method, head.target.path_and_query()));
    assert_eq!(their_body, body);
}

fn answer_is_written_as_it_was_read(head: &Head, body: &[u8], length: Option<u64>, bodyless: bool) {
    let Head { status, fields, framing, declared, keep_alive, prediction } = head;
    let copy = Head {
        status: *status,
        fields: fields.clone(),
        framing: *framing,
        declared: *declared,
        keep_alive: *keep_alive,
        prediction: prediction.clone(),
    };
    let out = written(copy, body, length, bodyless);
    // What is written has a few lines of ours; with them it may have more than is read again, here and by hyper.
    if out.split(|byte| *byte == b'\n').count() > HEADERS_MAX {
        return;
    }
    lines_are_fields(&out[..out.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0) + 4]);
    let again = read_answer(&[&out], bodyless);
    let Some(read) = &again.head else { panic!("{:?} from {}", again.fault, out.escape_ascii()) };
    let empty = bodyless || matches!(status.as_u16(), 204 | 304);
    let framing = match length {
        _ if empty => Framing::Length(0),
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    };
    assert_eq!((read.status, read.framing, read.keep_alive), (*status, framing, true), "{}", out.escape_ascii());
    assert_eq!((again.body.as_slice(), again.complete, again.rest), (body, true, 0), "{}", out.escape_ascii());
    let without_date = |fields: &Fields| {
        let mut fields = fields.clone();
        fields.remove(&header::DATE);
        passed_on(&fields)
    };
    assert_eq!(without_date(&read.fields), without_date(fields));
    let theirs = hyper_answer(&out, bodyless);
    assert_eq!(theirs, Some((status.as_u16(), body.to_vec())), "{}", out.escape_ascii());
}

/// A head of ours has lines that end in CR LF, no other CR or LF, and one framing.
fn lines_are_fields(head: &[u8]) {
    let text = head.strip_suffix(b"\r\n\r\n").expect("the head has an end");
    let mut framings = 0;
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(!line.contains(&b'\r') && !line.is_empty(), "{}", head.escape_ascii());
        let lower = line.to_ascii_lowercase();
        framings += usize::from(lower.starts_with(b"content-length:") || lower.starts_with(b"transfer-encoding:"));
        assert!(at == 0 || line.contains(&b':'), "{}", head.escape_ascii());
    }
    assert_eq!(text.iter().filter(|b| **b == b'\r').count(), text.iter().filter(|b| **b == b'\n').count());
    assert!(framings <= 1, "{}", head.escape_ascii());
}

/// Fields that go to the next hop, sorted.
fn passed_on(fields: &Fields) -> Vec<(HeaderName, Vec<u8>)> {
    let apart = [header::HOST, header::CONTENT_LENGTH, header::EXPECT, REQUEST_ID, FORWARDED_FOR];
    let named =
        |name: &HeaderName| fields.get_all(&header::CONNECTION).any(|tokens| is_named_by(tokens.as_bytes(), name));
    let stays = |name: &HeaderName| !apart.contains(name) && !is_hop_by_hop(name) && !named(name);
    let mut passed: Vec<_> = fields
        .iter()
        .filter(|(name, _)| stays(name))
        .map(|(name, value)| (name.clone(), value.as_bytes().to_vec()))
        .collect();
    passed.sort_by(|a, b| (a.0.as_str(), &a.1).cmp(&(b.0.as_str(), &b.1)));
    passed
}

/// Why no more is read.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Head(HeadError),
    Answer(ResponseError),
    Body(FramingError),
}

/// Requests, each with its body if that is complete.
type Requests = Vec<(RequestHead, Option<Vec<u8>>)>;

fn describe(requests: &Requests) -> Vec<String> {
    requests.iter().map(|(head, body)| format!("{head:?} {body:?}")).collect()
}

/// What a connection reads: requests up to the first that ends it, is not complete, or is refused.
fn read_requests(pieces: &[&[u8]], limits: HeadLimits) -> (Requests, Option<Fault>) {
    let (mut requests, mut buffer) = (Requests::new(), BytesMut::new());
    let mut body: Option<(BodyDecoder, Vec<u8>)> = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            if let Some((decoder, got)) = &mut body {
                if let Err(error) = take_body(decoder, &mut buffer, got) {
                    return (requests, Some(Fault::Body(error)));
                }
                if !decoder.is_done() {
                    break;
                }
                let got = std::mem::take(got);
                body = None;
                let request = requests.last_mut().expect("the body belongs to a request");
                request.1 = Some(got);
                if !request.0.keep_alive {
                    return (requests, None);
                }
            }
            match take_request(&mut buffer, limits) {
                Ok(Some(head)) => {
                    body = Some((BodyDecoder::new(head.framing), Vec::new()));
                    requests.push((head, None));
                }
                Ok(None) => {
                    assert!(buffer.len() < limits.bytes, "{} bytes wait for a head's end", buffer.len());
                    break;
                }
                Err(error) => return (requests, Some(Fault::Head(error))),
            }
        }
    }
    (requests, None)
}

#[derive(Debug)]
struct Answer {
    head: Option<Head>,
    body: Vec<u8>,
    complete: bool,
    /// Bytes after it.
    rest: usize,
    fault: Option<Fault>,
}

fn read_answer(pieces: &[&[u8]], bodyless: bool) -> Answer {
    let (mut reader, mut buffer) = (HeadReader::new(bodyless), BytesMut::new());
    let mut answer = Answer { head: None, body: Vec::new(), complete: false, rest: 0, fault: None };
    let mut decoder: Option<BodyDecoder> = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if decoder.is_none() {
            match reader.take(&mut buffer) {
                Ok(Some(head)) => {
                    decoder = Some(BodyDecoder::new(head.framing));
                    answer.head = Some(head);
                }
                Ok(None) => assert!(buffer.len() < HEAD_BYTES_MAX, "{} bytes wait for a head's end", buffer.len()),
                Err(error) => {
                    answer.fault = Some(Fault::Answer(error));
                    return answer;
                }
            }
        }
        if let Some(decoder) = &mut decoder
            && let Err(error) = take_body(decoder, &mut buffer, &mut answer.body)
        {
            answer.fault = Some(Fault::Body(error));
            return answer;
        }
    }
    answer.complete = decoder.is_some_and(|mut decoder| decoder.ended());
    answer.rest = buffer.len();
    answer
}

fn take_body(decoder: &mut BodyDecoder, buffer: &mut BytesMut, body: &mut Vec<u8>) -> Result<(), FramingError> {
    while let Some(piece) = decoder.take(buffer)? {
        assert!(!piece.is_empty());
        body.extend_from_slice(&piece);
    }
    assert!(decoder.is_done() || buffer.len() <= LINES_MAX, "{} bytes wait for a line's end", buffer.len());
    Ok(())
}

fn cut<'a>(bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, later) = rest.split_at((*size).clamp(1, rest.len()));
        pieces.push(piece);
        rest = later;
    }
    pieces
}

/// The requests that hyper reads: method and path, and the body if that is complete.
type HyperRequests = Vec<((Method, String), Option<Vec<u8>>)>;

fn hyper_requests(bytes: &[u8]) -> HyperRequests {
    let seen: Arc<Mutex<HyperRequests>> = Arc::default();
    let service = service_fn(|request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let (parts, body) = request.into_parts();
            let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            let index = {
                let mut seen = seen.lock().expect("one thread");
                seen.push(((parts.method, path), None));
                seen.len() - 1
            };
            if let Ok(body) = body.collect().await {
                seen.lock().expect("one thread")[index].1 = Some(body.to_bytes().to_vec());
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let wire = Wire { input: bytes.to_vec(), at: 0, waits_for_a_write: false };
    // Requests that came before the end are answered after it.
    let protocol = hyper::server::conn::http1::Builder::new().half_close(true).to_owned();
    let mut connection = pin!(protocol.serve_connection(wire, service));
    poll_out(|cx| connection.as_mut().poll(cx).map(drop));
    std::mem::take(&mut *seen.lock().expect("one thread"))
}

/// Status and body of the final answer that hyper reads, if it is complete.
fn hyper_answer(bytes: &[u8], bodyless: bool) -> Option<(u16, Vec<u8>)> {
    let wire = Wire { input: bytes.to_vec(), at: 0, waits_for_a_write: true };
    let mut handshake = pin!(hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(wire));
    let (mut sender, connection) = poll_out(|cx| handshake.as_mut().poll(cx))?.ok()?;
    let method = if bodyless { Method::HEAD } else { Method::GET };
    let request = Request::builder().method(method).uri("/").header("host", "a").body(Empty::new()).ok()?;
    let mut connection = pin!(connection);
    let mut exchange = pin!(async move {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes().to_vec();
        Some((status, body))
    });
    let mut ended = false;
    poll_out(|cx| {
        ended = ended || connection.as_mut().poll(cx).is_ready();
        exchange.as_mut().poll(cx)
    })?
}

/// Polls what never waits for the outside until it is ready, or is seen not to become so.
fn poll_out<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    let mut cx = Context::from_waker(Waker::noop());
    (0..20_000).find_map(|_| match poll(&mut cx) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    })
}

/// A connection on which some bytes come at once and then the end; what is written is passed over.
struct Wire {
    input: Vec<u8>,
    at: usize,
    waits_for_a_write: bool,
}

impl hyper::rt::Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.waits_for_a_write {
            return Poll::Pending;
        }
        let len = (self.input.len() - self.at).min(into.remaining());
        into.put_slice(&self.input[self.at..self.at + len]);
        self.at += len;
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.waits_for_a_write = false;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
