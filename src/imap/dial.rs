//! Connects to a host of several addresses: one that is dead hides none that works (RFC 8305). The addresses are given, and
//! were judged before: nothing is looked up here.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

/// An attempt that did not come to its end for this long is joined by the next (RFC 8305, section 5).
pub(super) const NEXT_AFTER: Duration = Duration::from_millis(250);
/// Of a host's addresses at most so many are tried: whoever names hosts in DNS must not make anybody knock at many doors.
const MAX_TRIED: usize = 16;

/// The order in which addresses are tried: families alternate, and otherwise it is the resolver's (RFC 8305, section 4, with
/// one address of the first family); the first [`MAX_TRIED`].
pub(super) fn in_turn(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = Vec::new();
    for address in addresses {
        if !seen.contains(&address) {
            seen.push(address);
        }
    }
    let first_is_ipv6 = seen.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = seen.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let longest = first.len().max(second.len());
    (0..longest).flat_map(|at| [first.get(at), second.get(at)]).flatten().copied().take(MAX_TRIED).collect()
}

/// What `connect` makes of the first of these addresses that answers: each is tried once the one before failed, or has not
/// answered within [`NEXT_AFTER`]. Where none answers, how the last one failed; none where there is none.
pub(super) async fn first_to_answer<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, Option<(SocketAddr, io::Error)>> {
    let attempt = |address| {
        let connecting = connect(address);
        async move { connecting.await.map_err(|error| (address, error)) }
    };
    let mut left = addresses.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut last = None;
    under_way.extend(left.next().map(attempt));
    while !under_way.is_empty() {
        tokio::select! {
            Some(ended) = under_way.next() => match ended {
                Ok(connected) => return Ok(connected),
                Err(failed) => {
                    last = Some(failed);
                    under_way.extend(left.next().map(attempt));
                }
            },
            () = sleep(NEXT_AFTER), if left.len() > 0 => under_way.extend(left.next().map(attempt)),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{Arc, Mutex},
    };

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 993)).collect()
    }

    #[test]
    fn families_take_turns_in_the_order_of_the_resolver() {
        let (a, b, c) = ("2001:db8::1", "2001:db8::2", "2001:db8::3");
        assert_eq!(in_turn(addresses(&[a, b, c, "192.0.2.1"])), addresses(&[a, "192.0.2.1", b, c]));
        assert_eq!(in_turn(addresses(&["192.0.2.1", "192.0.2.2", a])), addresses(&["192.0.2.1", a, "192.0.2.2"]));
        assert_eq!(in_turn(addresses(&[a, a, b])), addresses(&[a, b]));
        assert!(in_turn([]).is_empty());
    }

    proptest! {
        #[test]
        fn each_address_is_tried_once_and_no_other(hosts in prop::collection::vec(any::<std::net::IpAddr>(), 0..=MAX_TRIED)) {
            let given: Vec<SocketAddr> = hosts.into_iter().map(|host| SocketAddr::new(host, 993)).collect();
            let mut tried = in_turn(given.clone());
            let mut wanted = given;
            tried.sort();
            wanted.sort();
            wanted.dedup();
            prop_assert_eq!(tried, wanted);
        }
    }

    /// Tries these addresses, of which those behave as `connect` says; gives what came of it and who was asked.
    async fn tried<F: Future<Output = io::Result<SocketAddr>>>(
        list: &[&str],
        connect: impl Fn(SocketAddr) -> F,
    ) -> (Result<SocketAddr, Option<io::ErrorKind>>, usize) {
        let asked = Arc::new(Mutex::new(0));
        let counted = |address| {
            *asked.lock().unwrap() += 1;
            connect(address)
        };
        let answer = first_to_answer(addresses(list), counted).await;
        let answer = answer.map_err(|failed| failed.map(|(_, error)| error.kind()));
        (answer, *asked.lock().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_never_answers_hides_none_that_works() {
        for (dead, works) in [("2001:db8::1", "192.0.2.1"), ("192.0.2.1", "2001:db8::1")] {
            let began = Instant::now();
            let works_at = addresses(&[works])[0];
            let connect = |address| async move { if address == works_at { Ok(address) } else { pending().await } };
            assert_eq!(tried(&[dead, works], connect).await, (Ok(works_at), 2));
            assert_eq!(began.elapsed(), NEXT_AFTER);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_is_followed_by_the_next_at_once() {
        let began = Instant::now();
        let works = addresses(&["192.0.2.1"])[0];
        let refuse = |address| async move {
            if address == works { Ok(address) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
        };
        assert_eq!(tried(&["2001:db8::1", "192.0.2.1"], refuse).await, (Ok(works), 2));
        let refused = Err(Some(io::ErrorKind::ConnectionRefused));
        assert_eq!(tried(&["2001:db8::1", "2001:db8::2"], refuse).await, (refused, 2));
        assert_eq!(tried(&[], refuse).await, (Err(None), 0));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_answers_is_the_only_one_that_is_asked() {
        let slow = |address| async move {
            sleep(NEXT_AFTER / 2).await;
            Ok(address)
        };
        assert_eq!(tried(&["2001:db8::1", "192.0.2.1"], slow).await, (Ok(addresses(&["2001:db8::1"])[0]), 1));
    }

    #[tokio::test]
    async fn a_host_that_listens_on_one_family_only_is_reached() {
        use tokio::net::{TcpListener, TcpStream};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let works = listener.local_addr().unwrap();
        // Nothing listens there, or there is no IPv6 at all.
        let dead = SocketAddr::new("::1".parse().unwrap(), works.port());
        for both in [vec![dead, works], vec![works, dead]] {
            let stream = first_to_answer(in_turn(both), TcpStream::connect).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), works);
        }
    }

    #[test]
    fn of_a_host_with_very_many_addresses_a_few_of_each_family_are_tried() {
        let of = |n: u16| [format!("192.0.2.{n}"), format!("2001:db8::{n}")];
        let many: Vec<String> = (1..=100).flat_map(of).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let tried = in_turn(addresses(&many));
        assert_eq!(tried.len(), MAX_TRIED);
        assert_eq!(tried.iter().filter(|address| address.is_ipv6()).count(), MAX_TRIED / 2);
    }
}
