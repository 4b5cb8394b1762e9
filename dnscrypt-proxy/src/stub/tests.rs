use super::*;
use crate::upstream::Settings;

#[tokio::test]
async fn what_failed_is_forgotten_when_it_is_no_news_any_more() {
    tokio::time::pause();
    let nobody = Upstream::new(Vec::new(), Settings::default());
    let stub = Stub::new(nobody, StubConfig::default());
    let ask = async |name: &str| {
        let query = message::query(7, name, RecordType::A, 1232).unwrap();
        stub.answer(&query, Transport::Udp).await.unwrap()
    };
    let kept = || stub.flights().len();
    for name in ["a.example", "b.example"] {
        ask(name).await;
    }
    assert_eq!(kept(), 2);

    tokio::time::advance(Duration::from_secs(29)).await;
    ask("c.example").await;
    assert_eq!(kept(), 3);
    tokio::time::advance(Duration::from_secs(31)).await;
    ask("d.example").await;

    assert_eq!(kept(), 1);
}
