//! What an attacker, or a broken camera, sends: picture bombs, floods, requests that nobody waits
//! for. Refused clearly, without memory, and honest callers are served all the while.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use assent::service::client::ClientError;
use assent::service::proto;
use futures_util::future::join_all;
use prost::Message as _;
use prost::bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::codegen::http;

use crate::harness::{
    CONTROLLER, GATE, PATIENCE, POLICY, Place, Process, Service, connect, embedded, encoded,
    enrolment, enrolment_under, matched, photo, probe, revoke_subject, shared_gates, verify,
    verify_face, verify_photo,
};

/// What the whole set of bombs may add to the peak of resident memory, bytes. One legal picture of
/// 16 megapixels takes about a third of it.
const BOMBS_MAY_TAKE: u64 = 200 << 20;
/// What the control, a legal picture of 12 megapixels, must add: its pixels alone are 36 MB.
const CONTROL_TAKES: u64 = 30 << 20;
/// A legal picture with few bytes and many pixels.
const LARGE: u32 = 3_456;

/// CRC-32 as PNG wants it (ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xEDB8_8320 * (c & 1)))
    })
}

fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind, data].concat();
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [length.as_slice(), &body, &crc32(&body).to_be_bytes()].concat()
}

/// A PNG of grey pixels with these chunks between header and end.
fn png(width: u32, height: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let header = chunk(*b"IHDR", &[size.as_slice(), &[8, 0, 0, 0, 0]].concat());
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    file.extend(header);
    file.extend(chunks.concat());
    file.extend(chunk(*b"IEND", &[]));
    file
}

/// A zlib stream that inflates to `bytes` zeros, about 160 times smaller: one literal, then
/// matches of 258 bytes at distance 1 (RFC 1951, fixed codes).
fn zeros(bytes: usize) -> Vec<u8> {
    let (mut out, mut bits, mut filled) = (vec![0x78, 0x01], 0_u64, 0_u32);
    let mut put = |value: u64, count: u32| {
        bits |= value << filled;
        filled += count;
        while filled >= 8 {
            out.push(u8::try_from(bits & 0xFF).unwrap());
            bits >>= 8;
            filled -= 8;
        }
    };
    put(0b011, 3); // last block, fixed codes
    put(0b0000_1100, 8); // literal 0 is 00110000, most significant bit first
    for _ in 0..bytes / 258 {
        put(0b1010_0011, 8); // length 258 is 11000101
        put(0, 5); // distance 1
    }
    put(0, 7 + 8); // end of block, and what fills the last byte
    out.extend(adler_of_zeros(bytes / 258 * 258 + 1).to_be_bytes());
    out
}

fn adler_of_zeros(bytes: usize) -> u32 {
    u32::try_from(bytes % 65_521).unwrap() << 16 | 1
}

fn segment(marker: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 2).unwrap().to_be_bytes();
    [&[0xFF, marker], length.as_slice(), data].concat()
}

/// A JPEG with flat components: quantisation, frame and two Huffman tables of one code each, so
/// that "0" is "no difference" and, in the second, `ac`.
fn jpeg(frame: u8, size: u16, components: u8, ac: u8, scans: &[Vec<u8>]) -> Vec<u8> {
    let mut header = vec![8];
    header.extend([size.to_be_bytes(), size.to_be_bytes()].concat());
    header.push(components);
    (1..=components).for_each(|id| header.extend([id, 0x11, 0]));
    let table = |class: u8, symbol: u8| {
        let mut table = vec![class, 1];
        table.extend([0; 15]);
        table.push(symbol);
        segment(0xC4, &table)
    };
    let mut file = vec![0xFF, 0xD8];
    file.extend(segment(0xDB, &[vec![0], vec![1; 64]].concat()));
    file.extend(segment(frame, &header));
    file.extend(table(0x00, 0));
    file.extend(table(0x10, ac));
    file.extend(scans.concat());
    file.extend([0xFF, 0xD9]);
    file
}

fn scan(components: u8, from: u8, to: u8, data: &[u8]) -> Vec<u8> {
    let mut header = vec![components];
    (1..=components).for_each(|id| header.extend([id, 0]));
    header.extend([from, to, 0]);
    [segment(0xDA, &header), data.to_vec()].concat()
}

/// A progressive picture of 3,456 x 3,456 grey pixels; each of its AC scans says "all the rest is
/// zero" in a few bytes and costs a pass over 186,624 blocks.
fn progressive(scans: usize) -> Vec<u8> {
    let blocks = (LARGE as usize / 8).pow(2);
    let mut all = vec![scan(1, 0, 0, &vec![0; blocks.div_ceil(8)])];
    // Symbol 0xE0: a run of 2^14 blocks, and 14 bits more. Here all of those are 0.
    let runs = blocks.div_ceil(1 << 14);
    let rest = scan(1, 1, 63, &vec![0; (runs * 15).div_ceil(8)]);
    all.extend(std::iter::repeat_n(rest, scans));
    jpeg(0xC2, u16::try_from(LARGE).unwrap(), 1, 0xE0, &all)
}

/// CMYK, 64 x 64: each of 64 blocks of 4 components is "no difference, no more" in 2 bits.
fn cmyk() -> Vec<u8> {
    jpeg(0xC0, 64, 4, 0, &[scan(4, 0, 63, &[0; 64])])
}

/// A JPEG photo whose header says another size.
fn resized(mut photo: Vec<u8>, side: u16) -> Vec<u8> {
    let frame = photo.windows(2).position(|m| m == [0xFF, 0xC0] || m == [0xFF, 0xC2]).unwrap();
    let side = side.to_be_bytes();
    photo[frame + 5..frame + 9].copy_from_slice(&[side, side].concat());
    photo
}

fn sixteen_bit() -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 64, 64);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Sixteen);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![128; 64 * 64 * 8]).unwrap();
    writer.finish().unwrap();
    file
}

/// A legal picture of 12 megapixels in 74 KB.
fn large_and_legal() -> Vec<u8> {
    let rows = (LARGE as usize + 1) * LARGE as usize;
    png(LARGE, LARGE, &[chunk(*b"IDAT", &zeros(rows.next_multiple_of(258)))])
}

/// Pictures that must be refused.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let inflated = zeros(400 << 20);
    let pixels = chunk(*b"IDAT", &zeros(8 * 9 + 258));
    let profile = [b"x\0\0".as_slice(), &inflated].concat();
    let photo = photo("yaoming.jpg");
    let square = large_and_legal();
    vec![
        ("PNG header of 60,000 x 60,000", png(60_000, 60_000, std::slice::from_ref(&pixels))),
        ("PNG header of 2^31-1 squared", png(0x7FFF_FFFF, 0x7FFF_FFFF, &[pixels])),
        ("PNG header of 0 x 0", png(0, 0, &[])),
        ("JPEG header of 65,500 x 65,500", resized(photo.clone(), 65_500)),
        ("JPEG header of 5,000 x 5,000", resized(photo.clone(), 5_000)),
        ("JPEG cut in half", photo[..photo.len() / 2].to_vec()),
        ("JPEG cut to its header", photo[..200].to_vec()),
        ("PNG cut in half", square[..square.len() / 2].to_vec()),
        ("PNG without pixels", png(64, 64, &[])),
        ("progressive JPEG of 10,000 scans", progressive(10_000)),
        ("neither JPEG nor PNG", inflated[..inflated.len() / 4].to_vec()),
        ("PNG with a profile that never ends", png(64, 64, &[chunk(*b"iCCP", &profile)])),
    ]
}

/// Pictures that are odd and all the same pictures: they are decoded, and nobody is in them.
fn oddities() -> Vec<(&'static str, Vec<u8>)> {
    let inflated = chunk(*b"IDAT", &zeros(400 << 20));
    vec![
        ("PNG of 8 x 8 with pixels that never end", png(8, 8, &[inflated])),
        ("CMYK JPEG", cmyk()),
        ("PNG of 16 bits", sixteen_bit()),
        ("progressive JPEG of 3 scans", progressive(3)),
    ]
}

fn raw(width: u32, height: u32, stride: u32, bytes: usize) -> proto::RawFrame {
    let format = proto::PixelFormat::Rgb8.into();
    proto::RawFrame { data: vec![128; bytes], format, width, height, stride }
}

fn bad_raw_frames() -> Vec<(&'static str, proto::RawFrame)> {
    let nv12 = proto::PixelFormat::Nv12.into();
    vec![
        ("width x height overflows 32 bits", raw(65_536, 65_537, 0, 999)),
        ("width x height overflows 64 bits", raw(u32::MAX, u32::MAX, 0, 999)),
        ("stride x height overflows", raw(4, 65_535, u32::MAX, 999)),
        ("more than 16 megapixels", raw(4_001, 4_000, 0, 999)),
        ("no width", raw(0, 100, 0, 999)),
        ("stride below the row", raw(100, 10, 299, 99_999)),
        ("one byte short", raw(100, 100, 0, 29_999)),
        ("one byte short of its stride", raw(100, 100, 304, 30_399)),
        ("odd NV12", proto::RawFrame { format: nv12, ..raw(101, 100, 0, 99_999) }),
        ("NV12 without colour", proto::RawFrame { format: nv12, ..raw(100, 100, 0, 10_000) }),
        ("no format", proto::RawFrame { format: 0, ..raw(100, 100, 0, 30_000) }),
        ("unknown format", proto::RawFrame { format: 99, ..raw(100, 100, 0, 30_000) }),
    ]
}

/// Lets the peak of resident memory begin anew, so that what loading the models took hides nothing.
fn forget_peak(process: &Process) {
    std::fs::write(format!("/proc/{}/clear_refs", process.id()), "5").unwrap();
}

/// Peak of resident memory, bytes.
fn peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_refused_before_they_take_memory() {
    let place = Place::new();
    let mut process = Process::spawn(&place);
    let client = process.client().await;
    let policy = proto::ApplyPolicyRequest { toml: POLICY.to_owned(), dry_run: false };
    client.apply_policy(policy).await.unwrap();
    let honest = enrolment(&client, "honest", "north-gate", vec![encoded(photo("yaoming.jpg"))]);
    client.enroll(honest.await).await.unwrap();
    // Both workers have seen a large frame of a camera.
    for _ in 0..4 {
        client.verify(verify_photo(GATE, photo("players.jpg"))).await.unwrap();
    }

    forget_peak(&process);
    let before = peak(&process);
    let enrolling = enrolment(&client, "bomber", "north-gate", Vec::new()).await;
    for (name, bomb) in bombs() {
        assert!(bomb.len() < 4 << 20, "{name} does not fit a message");
        let refusal = client.verify(verify_photo(GATE, bomb.clone())).await.expect_err(name);
        assert_eq!(refusal.code.name(), "INVALID_ARGUMENT", "{name}: {refusal}");
        assert!(!refusal.alternatives.is_empty(), "{name}");
        let enrolment = proto::EnrollRequest { frames: vec![encoded(bomb)], ..enrolling.clone() };
        let refusal = client.enroll(enrolment).await.expect_err(name);
        assert_eq!(refusal.field.as_deref(), Some("frames[0]"), "{name}: {refusal}");
    }
    for (name, frame) in bad_raw_frames() {
        let request = verify(GATE, proto::verify_request::Probe::Raw(frame.clone()));
        let refusal = client.verify(request).await.expect_err(name);
        assert_eq!(refusal.code.name(), "INVALID_ARGUMENT", "{name}: {refusal}");
        let frames = vec![probe(proto::probe::Form::Raw(frame))];
        let refusal = client.enroll(proto::EnrollRequest { frames, ..enrolling.clone() }).await;
        let field = refusal.expect_err(name).field.unwrap();
        assert!(field.starts_with("frames[0]"), "{name}: {field}");
    }
    for (name, picture) in oddities() {
        let seen = client.verify(verify_photo(GATE, picture)).await;
        let seen = seen.unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!(seen.decision(), proto::Decision::NoFace, "{name}");
    }
    let after = peak(&process);
    let (taken, limit) = ((after - before) >> 20, BOMBS_MAY_TAKE >> 20);
    assert!(taken <= limit, "the bombs took {taken} MiB, more than {limit}");

    // The controls: what is legal is decoded, the measure sees it, and honest people still enter.
    for frame in [raw(320, 240, 0, 230_400), raw(320, 240, 1_024, 245_760)] {
        let request = verify(GATE, proto::verify_request::Probe::Raw(frame));
        let seen = client.verify(request).await.unwrap();
        assert_eq!(seen.decision(), proto::Decision::NoFace);
    }
    forget_peak(&process);
    let before = peak(&process);
    let large = large_and_legal();
    let policy = proto::ApplyPolicyRequest { toml: shared_gates(), dry_run: false };
    client.apply_policy(policy).await.unwrap();
    let sent: Vec<_> = (0..4).map(|_| client.verify(verify_photo(GATE, large.clone()))).collect();
    for seen in join_all(sent).await {
        assert_eq!(seen.unwrap().decision(), proto::Decision::NoFace);
    }
    let first = peak(&process);
    assert!(first - before >= CONTROL_TAKES, "the measure sees nothing");
    let found = client.verify(verify_photo(GATE, photo("yaoming.jpg"))).await.unwrap();
    assert_eq!(matched(&found), Some("honest"));
    let status = client.status(proto::StatusRequest {}).await.unwrap();
    assert_eq!((status.subjects, status.state.as_str()), (1, "serving"));
}

/// One call in raw HTTP/2: what a client of tonic's cannot send, or hides.
async fn call(address: SocketAddr, path: &str, timeout: Option<&str>, message: &[u8]) -> Status {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let mut client = client.ready().await.unwrap();
    let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let framed = Bytes::from([&[0], length.as_slice(), message].concat());
    // A server that has heard enough may close the stream before all is sent.
    let _sent = body.send_data(framed, true);
    let (head, mut body) = response.await.unwrap().into_parts();
    let mut headers = head.headers;
    while let Some(data) = body.data().await {
        let length = data.unwrap().len();
        let _still_open = body.flow_control().release_capacity(length);
    }
    headers.extend(body.trailers().await.unwrap().unwrap_or_default());
    driver.abort();
    Status::from_header_map(&headers).expect("a gRPC status")
}

const VERIFY: &str = "/assent.v1.Gate/Verify";
const ENROLL: &str = "/assent.v1.Enrollment/Enroll";

#[tokio::test(flavor = "multi_thread")]
async fn what_no_handler_reads_is_refused_with_another_way_in() {
    let service = Service::start().await;
    service.apply(&shared_gates()).await;
    let address = service.running.address();
    late_requests_are_told_so(&service).await;

    let huge = verify_photo(GATE, vec![0xFF; 5 << 20]);
    let refusal = service.client.verify(huge.clone()).await.unwrap_err();
    assert!(["OUT_OF_RANGE", "RESOURCE_EXHAUSTED"].contains(&refusal.code.name()), "{refusal:?}");
    assert!(!refusal.alternatives.is_empty(), "{refusal:?}");
    let mut answers =
        service.client.verify_stream(futures_util::stream::iter([huge])).await.unwrap();
    let broken = answers.next().await.unwrap_err();
    assert!(!broken.alternatives.is_empty(), "{broken:?}");

    let nonsense = call(address, VERIFY, None, &[0xFF; 100]).await;
    assert_named(nonsense, "INTERNAL");
    let unknown = call(address, "/assent.v1.Gate/NoSuch", None, &[]).await;
    assert_named(unknown, "UNIMPLEMENTED");

    // The control: a message just below the limit is read, and judged as what it is.
    let fits = verify_photo(GATE, vec![0xFF; (4 << 20) - 64]);
    let refusal = service.client.verify(fits).await.unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("probe"), "{refusal:?}");
    abandoned_requests_do_no_harm(&service).await;
    service.stop().await;
}

fn assert_named(status: Status, code: &str) {
    let refusal = ClientError::from(status);
    assert_eq!(refusal.code.name(), code, "{refusal:?}");
    assert!(!refusal.alternatives.is_empty(), "{refusal:?}");
}

async fn late_requests_are_told_so(service: &Service) {
    let address = service.running.address();
    let picture = verify_photo(GATE, photo("players.jpg")).encode_to_vec();
    let face = verify_face(GATE, 1).encode_to_vec();
    for timeout in ["0n", "1n", "1u", "0S"] {
        for message in [&picture, &face] {
            let status = call(address, VERIFY, Some(timeout), message).await;
            assert_named(status, "DEADLINE_EXCEEDED");
        }
    }
    a_late_gate_hears_of_its_own_other_ways(service).await;
    let enrolment = service.enrolment("late", vec![encoded(photo("yaoming.jpg"))]).await;
    let status = call(address, ENROLL, Some("1n"), &enrolment.encode_to_vec()).await;
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    let asked = proto::DescribeSubjectRequest {
        controller_id: CONTROLLER.to_owned(),
        subject_ref: "late".to_owned(),
    };
    let held = service.client.describe_subject(asked).await.unwrap();
    assert!(held.records.is_empty(), "late, and enrolled all the same");
    // The control: whoever waits, and whoever says nothing sensible, is answered.
    for timeout in [Some("99999999H"), Some("9M"), Some("soon"), None] {
        let status = call(address, VERIFY, timeout, &picture).await;
        assert_eq!(status.code(), tonic::Code::Ok, "{timeout:?}: {status:?}");
    }
}

/// Where the message is here in time and the decision is not. How long either takes depends on the
/// machine: deadlines are tried until one lies between.
async fn a_late_gate_hears_of_its_own_other_ways(service: &Service) {
    let address = service.running.address();
    let own = service.client.verify(verify_face(GATE, 1)).await.unwrap().alternatives;
    let large = verify_photo(GATE, large_and_legal()).encode_to_vec();
    let begun = Instant::now();
    for timeout in ["15m", "20m", "30m", "40m", "60m", "90m"].into_iter().cycle() {
        let status = call(address, VERIFY, Some(timeout), &large).await;
        let late = status.code() == tonic::Code::DeadlineExceeded;
        if late && ClientError::from(status).alternatives == own {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "a late gate never heard of its own ways in");
    }
}

async fn abandoned_requests_do_no_harm(service: &Service) {
    let request = service.enrolment("stays", vec![encoded(photo("yaoming.jpg"))]).await;
    service.client.enroll(request).await.unwrap();
    for round in 0..10_u64 {
        let sent: Vec<_> = (0..16)
            .map(|_| {
                let client = service.client.clone();
                let request = verify_photo(GATE, photo("players.jpg"));
                tokio::spawn(async move { client.verify(request).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(round)).await;
        sent.iter().for_each(tokio::task::JoinHandle::abort);
    }
    let found = service.client.verify(verify_photo(GATE, photo("yaoming.jpg"))).await.unwrap();
    assert_eq!(matched(&found), Some("stays"));
    assert!(service.client.is_serving("").await.unwrap());
    service.client.revoke(revoke_subject("stays")).await.unwrap();
}

/// Callers that ask again as soon as they are answered, until told to stop.
struct Flood {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    callers: Vec<tokio::task::JoinHandle<()>>,
}

impl Flood {
    fn begin(service: &Service) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicUsize::new(0));
        let callers = (0..12).map(|_| {
            let (stop, refused) = (Arc::clone(&stop), Arc::clone(&refused));
            let client = service.client.clone();
            let request = verify_photo(GATE, photo("players.jpg"));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let Err(refusal) = client.verify(request.clone()).await else { continue };
                    assert_eq!(refusal.code.name(), "RESOURCE_EXHAUSTED", "{refusal}");
                    assert!(refusal.retry_after.is_some_and(|wait| !wait.is_zero()), "{refusal:?}");
                    assert!(!refusal.alternatives.is_empty());
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let callers = callers.collect();
        Self { stop, refused, callers }
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Waits until more were refused than now.
    async fn goes_on(&self) {
        let (now, begun) = (self.refused(), Instant::now());
        while self.refused() == now {
            assert!(begun.elapsed() < PATIENCE, "nobody was refused");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_refused_at_once_and_revocation_goes_on() {
    let config = "[limits]\nrequests_in_flight = 2\n";
    let service = Service::start_configured(Place::new(), config).await;
    let notice = service.notice().await;
    let enrol = async |person: u64| {
        let frames = vec![embedded(person)];
        let request = enrolment_under(&notice, &format!("p-{person}"), "north-gate", frames);
        service.client.enroll(request).await.unwrap();
    };
    for person in 0..8 {
        enrol(person).await;
    }
    let flood = Flood::begin(&service);
    for person in 0..8 {
        flood.goes_on().await;
        let revoked = service.client.revoke(revoke_subject(&format!("p-{person}"))).await.unwrap();
        assert_eq!(revoked.revoked_records.len(), 1);
    }
    flood.goes_on().await;
    // Whoever looks how the service does is answered too.
    assert!(service.client.is_serving("").await.unwrap());
    service.client.status(proto::StatusRequest {}).await.unwrap();
    pushback_is_said(&service).await;
    // A gate's flood takes no place of an enrolment.
    for person in 100..120 {
        enrol(person).await;
    }
    flood.goes_on().await;
    flood.end().await;
    enrolments_in_flood_are_refused_too(&service, &notice).await;
    let nobody = service.client.verify(verify_face(GATE, 1)).await.unwrap();
    assert_eq!(matched(&nobody), None);
    service.stop().await;
}

/// Tries until the flood leaves no room; then what comes back names when to try again.
async fn pushback_is_said(service: &Service) {
    let address = service.running.address();
    let message = verify_photo(GATE, photo("players.jpg")).encode_to_vec();
    let begun = Instant::now();
    loop {
        let status = call(address, VERIFY, None, &message).await;
        if status.code() == tonic::Code::ResourceExhausted {
            let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
            assert!(pushback.to_str().unwrap().parse::<u64>().unwrap() > 0);
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "never refused");
    }
}

/// There is one place for enrolments here.
async fn enrolments_in_flood_are_refused_too(service: &Service, notice: &proto::Notice) {
    let begun = Instant::now();
    for round in 0..u64::MAX {
        let calls = (0..8).map(|person| {
            let (subject, frames) =
                (format!("q-{round}-{person}"), vec![embedded(1_000 + 8 * round + person)]);
            service.client.enroll(enrolment_under(notice, &subject, "north-gate", frames))
        });
        let refusals = join_all(calls).await.into_iter().filter_map(Result::err);
        let refused = refusals
            .inspect(|refusal| assert_eq!(refusal.code.name(), "RESOURCE_EXHAUSTED", "{refusal}"));
        if refused.count() > 0 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "never refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_say_nothing_do_not_keep_a_revocation_out() {
    let config = "[limits]\nconnections = 40\nhandshake_ms = 300\n";
    let service = Service::start_configured(Place::new(), config).await;
    let address = service.running.address();
    let request = service.enrolment("leaver", vec![embedded(1)]).await;
    service.client.enroll(request).await.unwrap();
    let mut silent = Vec::new();
    for said in 0..60 {
        let mut socket = TcpStream::connect(address).await.unwrap();
        // Some say nothing, some begin and fall silent.
        if said % 2 == 1 {
            socket.write_all(b"PRI").await.unwrap();
        }
        silent.push(socket);
    }
    let revoked = tokio::time::timeout(PATIENCE, async {
        let late = connect(address).await;
        late.revoke(revoke_subject("leaver")).await
    });
    assert_eq!(revoked.await.unwrap().unwrap().revoked_records.len(), 1);
    for mut socket in silent {
        let closed = async { while socket.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {} };
        tokio::time::timeout(PATIENCE, closed).await.expect("a silent socket is closed");
    }
    // Whoever has spoken once may be silent for as long as it likes.
    assert!(service.client.is_serving("").await.unwrap());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_never_ends_is_not_waited_for() {
    let config = "[limits]\ndefault_deadline_ms = 300\n";
    let service = Service::start_configured(Place::new(), config).await;
    let address = service.running.address();
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    for path in [VERIFY, ENROLL, "/assent.v1.Enrollment/Revoke"] {
        let request = http::Request::post(format!("http://{address}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(&[0, 0, 0x10, 0, 0, 1, 2, 3]), false).unwrap();
        let head = tokio::time::timeout(PATIENCE, response).await.expect(path).unwrap();
        let status = Status::from_header_map(head.headers()).expect(path);
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{path}: {status:?}");
    }
    driver.abort();
    service.stop().await;
}
