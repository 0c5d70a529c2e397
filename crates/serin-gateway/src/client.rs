//! A client's connection as the worker's tick sees it: whether it is idle, slow, or to be ended. Requests only note what they
//! do; no timer is set and nothing is scanned for each of them.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};

/// Seconds that a connection has to end once it was told to.
const GRACE_S: u32 = 5;

/// State of one client connection. Times are in seconds of its worker's clock.
#[derive(Debug)]
pub struct ClientConn {
    /// Address of the client, as text.
    peer: Box<str>,
    requests: Cell<u32>,
    is_h2: Cell<bool>,
    /// When the connection became idle.
    idle_since_s: Cell<u32>,
    /// When the first byte of a head arrived whose end has not.
    head_since_s: Cell<Option<u32>>,
    /// Since when the client takes no bytes.
    stuck_since_s: Cell<Option<u32>>,
    told_to_end: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What the tick does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Stay,
    /// It has been idle for long: say goodbye.
    End,
    /// It is too slow, or did not end when told: cut it.
    Cut,
}

impl ClientConn {
    /// A new connection.
    #[must_use]
    pub fn new(peer: String, now_s: u32) -> ClientConn {
        ClientConn {
            peer: peer.into(),
            requests: Cell::new(0),
            is_h2: Cell::new(false),
            idle_since_s: Cell::new(now_s),
            head_since_s: Cell::new(None),
            stuck_since_s: Cell::new(None),
            told_to_end: Cell::new(false),
            waker: RefCell::default(),
        }
    }

    /// Address of the client, as text.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// It speaks HTTP/2.
    pub fn set_h2(&self) {
        self.is_h2.set(true);
        self.head_since_s.set(None);
    }

    /// Whether it speaks HTTP/2.
    #[must_use]
    pub fn is_h2(&self) -> bool {
        self.is_h2.get()
    }

    /// Bytes of a head have arrived.
    pub fn head_begins(&self, now_s: u32) {
        if self.head_since_s.get().is_none() {
            self.head_since_s.set(Some(now_s));
        }
    }

    /// A request's head is complete.
    pub fn request_begins(&self) {
        self.requests.set(self.requests.get() + 1);
        self.head_since_s.set(None);
    }

    /// Its answer is sent.
    pub fn request_ends(&self, now_s: u32) {
        self.requests.set(self.requests.get().saturating_sub(1));
        self.idle_since_s.set(now_s);
    }

    /// Whether the client takes the bytes that are sent to it.
    pub fn set_stuck(&self, stuck: bool, now_s: u32) {
        if stuck != self.stuck_since_s.get().is_some() {
            self.stuck_since_s.set(stuck.then_some(now_s));
        }
    }

    /// What to do at a tick.
    #[must_use]
    pub fn judge(&self, now_s: u32, head_s: u32, idle_s: u32) -> Verdict {
        let longer_than =
            |since: Option<u32>, limit: u32| since.is_some_and(|since| now_s.saturating_sub(since) > limit);
        if longer_than(self.stuck_since_s.get(), idle_s) {
            return Verdict::Cut;
        }
        if self.requests.get() > 0 {
            return Verdict::Stay;
        }
        let idle_since = Some(self.idle_since_s.get());
        if longer_than(self.head_since_s.get(), head_s) || longer_than(idle_since, idle_s.saturating_add(GRACE_S)) {
            Verdict::Cut
        } else if longer_than(idle_since, idle_s) && !self.told_to_end.get() {
            Verdict::End
        } else {
            Verdict::Stay
        }
    }

    /// Asks the connection's task to end it in good order.
    pub fn tell_to_end(&self) {
        self.told_to_end.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Whether the task was asked to end; also remembers how to wake it for that.
    #[must_use]
    pub fn is_told_to_end(&self, cx: &Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.told_to_end.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_ends_what_is_idle_and_cuts_what_is_slow() {
        type Prepare = fn(&ClientConn);
        //  why                                       at   verdict
        let rows: [(&str, Prepare, u32, Verdict); 11] = [
            ("new", |_| {}, 60, Verdict::Stay),
            ("idle for long", |_| {}, 61, Verdict::End),
            ("told already", ClientConn::tell_to_end, 62, Verdict::Stay),
            ("and did not end", ClientConn::tell_to_end, 66, Verdict::Cut),
            ("in a request", ClientConn::request_begins, 999, Verdict::Stay),
            (
                "after a request",
                |c| {
                    c.request_begins();
                    c.request_ends(50);
                },
                110,
                Verdict::Stay,
            ),
            (
                "long after a request",
                |c| {
                    c.request_begins();
                    c.request_ends(50);
                },
                111,
                Verdict::End,
            ),
            ("in a head", |c| c.head_begins(5), 15, Verdict::Stay),
            (
                "too long in a head, whatever comes",
                |c| {
                    c.head_begins(5);
                    c.head_begins(14);
                },
                16,
                Verdict::Cut,
            ),
            (
                "HTTP/2 has no head to wait for",
                |c| {
                    c.head_begins(5);
                    c.set_h2();
                },
                60,
                Verdict::Stay,
            ),
            (
                "takes no bytes",
                |c| {
                    c.request_begins();
                    c.set_stuck(true, 9);
                    c.set_stuck(true, 60);
                },
                70,
                Verdict::Cut,
            ),
        ];
        for (why, prepare, at, verdict) in rows {
            let conn = ClientConn::new("127.0.0.1".to_owned(), 0);
            prepare(&conn);
            assert_eq!(conn.judge(at, 10, 60), verdict, "{why}");
        }
        let conn = ClientConn::new("127.0.0.1".to_owned(), 0);
        conn.request_begins();
        conn.set_stuck(true, 1);
        conn.set_stuck(false, 30);
        assert_eq!(conn.judge(90, 10, 60), Verdict::Stay, "it takes bytes again");
    }
}
