//! Where a server listens: a unix socket or a TCP port.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// An address to listen on: `unix:/path/of/socket` or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A unix socket. A file that is there already is replaced.
    Unix(PathBuf),
    /// A TCP port; port 0 is chosen by the system.
    Tcp(String),
}

/// Longest path of a unix socket: the system's field has 108 bytes, one for the end.
const UNIX_PATH_MAX: usize = 107;

/// Added to a socket's path while it is made.
const TEMPORARY: &str = ".new";

/// Why an address was not accepted.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Not an address.
    #[error("listen address is {got:?}, want `unix:/path` or `host:port`")]
    Form {
        /// What was given.
        got: String,
    },
    /// A path that the system has no room for.
    #[error("socket path {path} has {length} bytes, want at most {max}; use a shorter folder")]
    PathTooLong {
        /// The path.
        path: String,
        /// Its length.
        length: usize,
        /// The longest possible.
        max: usize,
    },
    /// The system refused it.
    #[error("cannot listen on {address}: {error}")]
    Io {
        /// The address.
        address: String,
        /// The system's error.
        error: io::Error,
    },
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Listen, ListenError> {
        let wrong = || ListenError::Form { got: text.to_owned() };
        if let Some(path) = text.strip_prefix("unix:") {
            // Also as a URI.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(wrong()) } else { Ok(Listen::Unix(PathBuf::from(path))) };
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Listen::Tcp(text.to_owned())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
            Listen::Tcp(address) => f.write_str(address),
        }
    }
}

/// An open listener.
#[derive(Debug)]
pub(super) struct Listener {
    inner: Inner,
    address: Listen,
}

#[derive(Debug)]
enum Inner {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    pub(super) async fn bind(listen: &Listen) -> Result<Listener, ListenError> {
        let failed = |error| ListenError::Io { address: listen.to_string(), error };
        match listen {
            Listen::Unix(path) => {
                let inner = Inner::Unix(bind_unix(path).map_err(|error| match error {
                    BindError::TooLong(length) => ListenError::PathTooLong {
                        path: path.display().to_string(),
                        length,
                        max: UNIX_PATH_MAX - TEMPORARY.len(),
                    },
                    BindError::Io(error) => failed(error),
                })?);
                Ok(Listener { inner, address: listen.clone() })
            }
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let address = Listen::Tcp(listener.local_addr().map_err(failed)?.to_string());
                Ok(Listener { inner: Inner::Tcp(listener), address })
            }
        }
    }

    pub(super) fn address(&self) -> &Listen {
        &self.address
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match &self.inner {
            Inner::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
            Inner::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are written whole; waiting for more to send only delays them.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

impl Drop for Listener {
    /// Removes the socket's file, so that a connect fails at once and not only when the process has ended.
    fn drop(&mut self) {
        if let Listen::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

enum BindError {
    TooLong(usize),
    Io(io::Error),
}

/// Binds under another name and renames: whoever finds the final name finds a socket that accepts, a stale file never
/// stands in the way, and there is no moment without one.
fn bind_unix(path: &Path) -> Result<UnixListener, BindError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY);
    if temporary.len() > UNIX_PATH_MAX {
        return Err(BindError::TooLong(path.as_os_str().len()));
    }
    match std::fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(BindError::Io(error)),
    }
    let listener = UnixListener::bind(&temporary).map_err(BindError::Io)?;
    std::fs::rename(&temporary, path).map_err(BindError::Io)?;
    Ok(listener)
}

/// A connection.
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_written() {
        let rows = [
            ("unix:/run/a.sock", Some(Listen::Unix("/run/a.sock".into()))),
            ("unix:///run/a.sock", Some(Listen::Unix("/run/a.sock".into()))),
            ("127.0.0.1:8080", Some(Listen::Tcp("127.0.0.1:8080".into()))),
            ("[::1]:0", Some(Listen::Tcp("[::1]:0".into()))),
            ("unix:", None),
            ("8080", None),
            (":8080", None),
            ("host:99999", None),
        ];
        for (text, want) in rows {
            assert_eq!(text.parse::<Listen>().ok(), want, "{text}");
        }
    }

    #[tokio::test]
    async fn a_stale_socket_file_is_replaced_and_the_file_goes_with_the_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        std::fs::write(&path, b"stale").unwrap();
        std::fs::write(folder.path().join("a.sock.new"), b"stale").unwrap();
        let listener = Listener::bind(&Listen::Unix(path.clone())).await.unwrap();
        let (client, server) = tokio::join!(UnixStream::connect(&path), listener.accept());
        assert!(client.is_ok() && server.is_ok());
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_path_too_long_is_refused_by_its_length() {
        let path = format!("/tmp/{}", "x".repeat(100));
        let error = Listener::bind(&Listen::Unix(path.into())).await.unwrap_err().to_string();
        assert!(error.contains("has 105 bytes, want at most 103"), "{error}");
    }
}
