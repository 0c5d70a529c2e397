//! The cheapest upstream that a benchmark can have: answers every request with the same bytes, on one thread.
//!
//! `upstream ADDRESS|SOCKET-PATH [BODY-BYTES]`. It reads heads up to their blank line and bodies by `content-length`.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:9000".to_owned());
    let bytes: usize = args.next().and_then(|text| text.parse().ok()).unwrap_or(200);
    let body = format!("{{\"outputs\":\"{}\"}}", "x".repeat(bytes.saturating_sub(14)));
    let answer: Arc<[u8]> =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            .into_bytes()
            .into();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if address.starts_with('/') {
            let _ = std::fs::remove_file(&address);
            let listener = UnixListener::bind(&address)?;
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(serve(stream, answer.clone()));
            }
        }
        let listener = TcpListener::bind(&address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream, answer.clone()));
        }
    })
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Arc<[u8]>) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut filled = 0;
    loop {
        while let Some(length) = request_length(&buffer[..filled]).filter(|length| *length <= filled) {
            buffer.copy_within(length..filled, 0);
            filled -= length;
            stream.write_all(&answer).await?;
        }
        if filled == buffer.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "request is larger than 64 KiB"));
        }
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Ok(()),
            read => filled += read,
        }
    }
}

/// Length of the first request in `bytes`, once its head is complete.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let name = b"content-length:";
    let line = bytes[..head]
        .split(|byte| *byte == b'\n')
        .find(|line| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name));
    let body = line.and_then(|line| std::str::from_utf8(&line[name.len()..]).ok()?.trim().parse().ok()).unwrap_or(0);
    Some(head + body)
}
