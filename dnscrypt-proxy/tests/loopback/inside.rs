//! Zones of the network's own servers: asked of these in clear, and of no resolver.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dnscrypt_proxy::policy::{Policy, Rebinding, Rules};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::rig::{Server, Stub, a_query, ask_tcp, ask_udp, records, with_edns};

/// A server of the network's own. Its answers claim to be proven and lead inside, but for names that begin with `broken`; before each
/// come answers to other questions.
struct Plain {
    addr: SocketAddr,
    udp: Arc<AtomicUsize>,
    tcp: Arc<AtomicUsize>,
    tasks: [JoinHandle<()>; 2],
}

impl Plain {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let listener = TcpListener::bind(addr).await.unwrap();
        let (udp, tcp) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let tasks = [
            tokio::spawn(over_udp(socket, Arc::clone(&udp))),
            tokio::spawn(over_tcp(listener, Arc::clone(&tcp))),
        ];
        Self {
            addr,
            udp,
            tcp,
            tasks,
        }
    }

    fn asked(&self) -> (usize, usize) {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (read(&self.udp), read(&self.tcp))
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn first_label(message: &Message) -> String {
    let label = message.queries[0].name().iter().next().unwrap().to_vec();
    String::from_utf8(label).unwrap()
}

fn whole(query: &[u8]) -> Message {
    let mut message = Message::from_vec(query).unwrap().into_response();
    if first_label(&message) == "broken" {
        message.metadata.response_code = ResponseCode::ServFail;
        return message;
    }
    message.metadata.authentic_data = true;
    let name = message.queries[0].name().clone();
    let inside = || RData::A(A::new(10, 0, 0, 5));
    let bank = || Name::from_ascii("www.bank.example.").unwrap();
    match first_label(&message).as_str() {
        // Who is asked about one name says something of another.
        "beside" => {
            message.add_answer(Record::from_rdata(bank(), 300, inside()));
        }
        // Aliases without end.
        "long" => {
            let mut owner = name;
            for n in 0..40 {
                let target = Name::from_ascii(format!("n{n}.corp.example.")).unwrap();
                let alias = RData::CNAME(CNAME(target.clone()));
                message.add_answer(Record::from_rdata(owner, 300, alias));
                owner = target;
            }
            return message;
        }
        "away" => {
            let alias = RData::CNAME(CNAME(bank()));
            message.add_answer(Record::from_rdata(name.clone(), 300, alias));
            message.add_answer(Record::from_rdata(bank(), 300, inside()));
            message.add_authority(Record::from_rdata(bank(), 300, RData::NS(NS(bank()))));
            message.add_additional(Record::from_rdata(bank(), 300, inside()));
            return message;
        }
        _ => {}
    }
    message.add_answer(Record::from_rdata(name, 300, inside()));
    message
}

async fn over_udp(socket: UdpSocket, asked: Arc<AtomicUsize>) {
    let mut buffer = [0; 4096];
    while let Ok((len, client)) = socket.recv_from(&mut buffer).await {
        asked.fetch_add(1, Ordering::Relaxed);
        let mut answer = whole(&buffer[..len]);
        let mut other = answer.clone();
        other.metadata.id ^= 1;
        other.metadata.response_code = ResponseCode::NXDomain;
        let other_name = whole(&a_query("other.corp.example"));
        if first_label(&answer) == "large" {
            answer.answers.clear();
            answer.metadata.truncation = true;
        }
        for message in [&other, &other_name, &answer] {
            let bytes = message.to_vec().unwrap();
            socket.send_to(&bytes, client).await.unwrap();
        }
    }
}

async fn over_tcp(listener: TcpListener, asked: Arc<AtomicUsize>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        asked.fetch_add(1, Ordering::Relaxed);
        let len = stream.read_u16().await.unwrap();
        let mut query = vec![0; len.into()];
        stream.read_exact(&mut query).await.unwrap();
        let answer = whole(&query).to_vec().unwrap();
        stream
            .write_u16(answer.len().try_into().unwrap())
            .await
            .unwrap();
        stream.write_all(&answer).await.unwrap();
    }
}

/// An address that nobody answers at.
async fn silent() -> (SocketAddr, UdpSocket) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    (socket.local_addr().unwrap(), socket)
}

/// The address of a server over UDP that answers so.
async fn saying(mut answer: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((len, client)) = socket.recv_from(&mut buffer).await {
            socket
                .send_to(&answer(&buffer[..len]), client)
                .await
                .unwrap();
        }
    });
    addr
}

async fn forwarding(server: &Server, servers: &[SocketAddr]) -> Stub {
    let servers: String = servers.iter().map(|server| format!(" {server}")).collect();
    let policy = Policy::new(Rules {
        rebinding: Rebinding::Refused,
        forwards: vec![format!("corp.example{servers}").parse().unwrap()],
        ..Rules::default()
    });
    Stub::start_judging(policy, server).await
}

#[tokio::test]
async fn a_forwarded_zone_is_asked_of_its_server_alone_and_everything_else_of_the_resolvers_alone()
{
    let (server, plain) = (Server::start().await, Plain::start().await);
    let stub = forwarding(&server, &[plain.addr]).await;

    let outside = ask_udp(stub.addr, &a_query("r2.example")).await;
    assert_eq!((records(&outside), plain.asked()), (2, (0, 0)));
    for _ in 0..2 {
        let inside = ask_udp(stub.addr, &with_edns(a_query("nas.corp.example"))).await;
        let address = inside.answers[0].data.ip_addr().unwrap();
        assert_eq!(address.to_string(), "10.0.0.5");
        assert!(!inside.metadata.authentic_data, "nobody proved it");
    }
    assert_eq!((server.asked(), plain.asked()), (1, (1, 0)), "one is kept");
    let figures = stub.stub.figures();
    assert_eq!((figures.asked, figures.forwarded), (2, 1));
}

#[tokio::test]
async fn a_server_of_the_network_is_believed_about_what_was_asked_and_nothing_beside_it() {
    let (server, plain) = (Server::start().await, Plain::start().await);
    let stub = forwarding(&server, &[plain.addr]).await;

    for name in ["beside.corp.example", "long.corp.example"] {
        let refused = ask_udp(stub.addr, &a_query(name)).await;
        assert_eq!(refused.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(records(&refused), 0, "{refused}");
    }

    let away = ask_udp(stub.addr, &a_query("away.corp.example")).await;
    let kinds = away.answers.iter().map(Record::record_type);
    assert!(kinds.eq([RecordType::CNAME, RecordType::A]), "{away}");
    assert!(
        away.authorities.is_empty() && away.additionals.is_empty(),
        "{away}"
    );
}

#[tokio::test]
async fn what_the_internet_says_of_a_forwarded_zone_is_not_handed_out() {
    let (server, plain) = (Server::start().await, Plain::start().await);
    let stub = forwarding(&server, &[plain.addr]).await;

    let answer = ask_udp(stub.addr, &a_query("to-corp.example")).await;

    assert_eq!((answer.answers.len(), server.asked()), (0, 1), "{answer}");
}

#[tokio::test]
async fn an_answer_that_was_cut_is_asked_for_over_tcp() {
    let (server, plain) = (Server::start().await, Plain::start().await);
    let stub = forwarding(&server, &[plain.addr]).await;

    let answer = ask_tcp(stub.addr, &a_query("large.corp.example")).await;

    assert_eq!((records(&answer), plain.asked()), (1, (1, 1)));
}

#[tokio::test]
async fn the_next_server_is_asked_where_one_is_silent_gone_or_declines() {
    let (server, plain) = (Server::start().await, Plain::start().await);
    let (mute, _held) = silent().await;
    let (gone, closed) = silent().await;
    drop(closed);
    let stub = forwarding(&server, &[gone, mute, plain.addr]).await;
    let declined = forwarding(&server, &[plain.addr, mute]).await;

    let answer = ask_udp(stub.addr, &a_query("nas.corp.example")).await;
    assert_eq!(records(&answer), 1);
    let answer = ask_udp(declined.addr, &a_query("broken.corp.example")).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(plain.asked(), (2, 0));
    assert_eq!(server.asked(), 0, "no resolver is asked in its place");
}

#[tokio::test]
async fn the_next_server_is_asked_where_an_answer_cannot_be_used() {
    let (server, plain) = (Server::start().await, Plain::start().await);
    let cut = saying(|query| {
        let mut answer = whole(query).to_vec().unwrap();
        answer.truncate(answer.len() - 3);
        answer
    });
    let astray = saying(|query| {
        let mut answer = whole(query);
        let other = Name::from_ascii("www.bank.example.").unwrap();
        let inside = RData::A(A::new(10, 0, 0, 6));
        answer.answers.push(Record::from_rdata(other, 300, inside));
        answer.to_vec().unwrap()
    });
    let stub = forwarding(&server, &[cut.await, astray.await, plain.addr]).await;

    let answer = ask_udp(stub.addr, &a_query("nas.corp.example")).await;

    assert_eq!((records(&answer), plain.asked()), (1, (1, 0)), "{answer}");
    assert_eq!(server.asked(), 0);
}

/// What a server says that cannot read a query: with the question, and without it.
fn baffled(query: &[u8]) -> [Vec<u8>; 2] {
    let mut message = Message::from_vec(query).unwrap().into_response();
    message.edns = None;
    message.metadata.response_code = ResponseCode::FormErr;
    let whole = message.to_vec().unwrap();
    let mut bare = whole[..12].to_vec();
    bare[4..12].fill(0);
    [whole, bare]
}

#[tokio::test]
async fn a_server_that_does_not_know_edns_is_asked_again_without_it() {
    let (server, plain) = (Server::start().await, Plain::start().await);
    for says_question in [0, 1] {
        let old = saying(move |query| {
            let knows = Message::from_vec(query).unwrap().edns.is_none();
            match knows {
                true => whole(query).to_vec().unwrap(),
                false => baffled(query)[says_question].clone(),
            }
        });
        let stub = forwarding(&server, &[old.await, plain.addr]).await;

        let answer = ask_udp(stub.addr, &with_edns(a_query("nas.corp.example"))).await;

        assert_eq!(records(&answer), 1, "{answer}");
        assert_eq!((plain.asked(), server.asked()), ((0, 0), 0));
    }
}

#[tokio::test]
async fn a_server_that_reads_nothing_is_asked_twice_and_then_the_next_one() {
    let (server, plain) = (Server::start().await, Plain::start().await);
    for says_question in [0, 1] {
        let asked = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&asked);
        let baffled = saying(move |query| {
            count.fetch_add(1, Ordering::Relaxed);
            baffled(query)[says_question].clone()
        });
        let stub = forwarding(&server, &[baffled.await, plain.addr]).await;

        let answer = ask_udp(stub.addr, &a_query("nas.corp.example")).await;

        assert_eq!((records(&answer), server.asked()), (1, 0), "{answer}");
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert_eq!(plain.asked(), (says_question + 1, 0));
    }
}

#[tokio::test]
async fn a_refusal_of_another_question_is_no_word_about_this_one() {
    let (server, plain) = (Server::start().await, Plain::start().await);
    let plainly = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&plainly);
    let guessing = saying(move |query| {
        let is_plain = Message::from_vec(query).unwrap().edns.is_none();
        count.fetch_add(is_plain.into(), Ordering::Relaxed);
        let [_, mut bare] = baffled(query);
        bare[0] ^= 1;
        bare
    });
    let stub = forwarding(&server, &[guessing.await, plain.addr]).await;

    let answer = ask_udp(stub.addr, &a_query("nas.corp.example")).await;

    assert_eq!((records(&answer), plain.asked()), (1, (1, 0)));
    assert_eq!(plainly.load(Ordering::Relaxed), 0, "it is passed over");
}

#[tokio::test]
async fn a_zone_whose_servers_are_all_silent_fails_and_nobody_else_hears_of_it() {
    let server = Server::start().await;
    let (mute, _held) = silent().await;
    let stub = forwarding(&server, &[mute]).await;

    let answer = ask_udp(stub.addr, &a_query("nas.corp.example")).await;

    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!((server.asked(), stub.stub.figures().failed), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_inside_is_asked_again_though_no_resolver_can_be_hoped_for() {
    let (server, plain) = (Server::start().await, Plain::start().await);
    let (nobody, _held) = silent().await;
    let stub = forwarding(&server, &[plain.addr]).await;
    drop(ask_udp(stub.addr, &a_query("nas.corp.example")).await);
    let mut stamp = server.stamp();
    stamp.addr = nobody;
    stub.stub.upstream().set_stamps(vec![stamp]);
    drop(ask_udp(stub.addr, &a_query("r2.example")).await);
    assert!(!stub.stub.upstream().is_hopeful());

    super::rig::pass(std::time::Duration::from_secs(301)).await;
    let answer = ask_udp(stub.addr, &a_query("nas.corp.example")).await;

    assert_eq!((records(&answer), plain.asked()), (1, (2, 0)));
    assert_eq!(stub.stub.figures().stale, 0);
}
