//! Asks at TCP ports whether a process still listens there. No word is said: it is the kernel that answers, so a
//! process that is busy, or was stopped, answers too, and one that has ended does not.

use std::{io, net::SocketAddr, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

/// How often somebody is asked who lets this in and closes at once: a process that is being ended, whose port the
/// kernel closes last of all, or one that lives and has too many at its door.
const TIMES: usize = 3;
/// So long after it has let somebody in, a port that is being closed is closed, also on a busy machine. It costs a
/// place at the peer's door, which others may want.
const HOLD: Duration = Duration::from_millis(300);

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Answer {
    /// A process listens.
    Alive,
    /// Nobody does, says its kernel.
    Gone,
    /// Nobody answers, or nothing gets there.
    Unheard,
    /// This machine could not ask.
    Unknown,
}

/// Asks at all the ports at once. Of one answer it waits for `within`. Who lets this in is alive, unless the connection
/// ends by itself, and nobody is there any more when asked again.
pub(crate) async fn knock(sockets: &[SocketAddr], within: Duration) -> Answer {
    for _ in 0..TIMES {
        let mut inside = match timeout(within, enter(sockets)).await {
            Ok(Ok(inside)) => inside,
            Ok(Err(answer)) => return answer,
            Err(_) => return Answer::Unheard,
        };
        let ended = timeout(HOLD, inside.read(&mut [0])).await;
        if !matches!(ended, Ok(Ok(0) | Err(_))) {
            break;
        }
    }
    Answer::Alive
}

/// A connection to the port that lets this in first.
async fn enter(sockets: &[SocketAddr]) -> Result<TcpStream, Answer> {
    let mut attempts: FuturesUnordered<_> = sockets.iter().map(TcpStream::connect).collect();
    let mut all = if sockets.is_empty() { Answer::Unknown } else { Answer::Gone };
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(inside) => return Ok(inside),
            Err(error) => all = all.max(what_it_says(&error)),
        }
    }
    Err(all)
}

/// What a failure says of the peer; nothing where this machine lacks ports or files.
fn what_it_says(error: &io::Error) -> Answer {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut,
    };
    match error.kind() {
        ConnectionAborted | ConnectionRefused | ConnectionReset => Answer::Gone,
        HostUnreachable | NetworkUnreachable | TimedOut => Answer::Unheard,
        _ => Answer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// Nothing here takes this long, even on a busy machine.
    const WITHIN: Duration = Duration::from_secs(30);

    async fn port() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = listener.local_addr().unwrap();
        (listener, socket)
    }

    #[tokio::test]
    async fn who_listens_is_alive_also_without_a_word_and_who_does_not_is_gone() {
        let ((silent, open), (closed_listener, closed)) = (port().await, port().await);
        drop(closed_listener);
        assert_eq!(knock(&[open], WITHIN).await, Answer::Alive);
        assert_eq!(knock(&[closed], WITHIN).await, Answer::Gone);
        assert_eq!(knock(&[closed, open], WITHIN).await, Answer::Alive, "one of its ports is enough");
        assert_eq!(knock(&[], WITHIN).await, Answer::Unknown, "nobody was asked");
        drop(silent);
    }

    #[tokio::test]
    async fn who_closes_its_port_after_the_first_knock_is_gone_and_who_has_no_room_is_not() {
        let (listener, open) = port().await;
        let sockets = [open];
        let crowded = async {
            for _ in 0..TIMES {
                drop(listener.accept().await);
            }
        };
        let (answer, ()) = tokio::join!(knock(&sockets, WITHIN), crowded);
        assert_eq!(answer, Answer::Alive);
        let closing = async move { drop(listener.accept().await) };
        let (answer, ()) = tokio::join!(knock(&sockets, WITHIN), closing);
        assert_eq!(answer, Answer::Gone);
    }

    #[tokio::test]
    async fn who_does_not_answer_is_unheard() {
        // Whose queue is full, and who takes nobody from it: its kernel says nothing to those who come.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(0).unwrap();
        let address = full.local_addr().unwrap();
        let _waits = TcpStream::connect(address).await.unwrap();
        assert_eq!(knock(&[address], Duration::from_millis(50)).await, Answer::Unheard);
    }
}
