//! Every feature between every two servers.

use mailferry_testkit::ServerMake;
use tokio::task::JoinSet;

use crate::{
    can_run,
    features::Feature,
    known::{known_faults, unexplained},
};

/// Tries all features beside each other, each with accounts of its own.
async fn works(from: ServerMake, to: ServerMake) {
    if !can_run(&[from, to]) {
        return;
    }
    tokio::task::spawn_blocking(move || (from.shared(), to.shared())).await.unwrap();
    let mut tries = JoinSet::new();
    for feature in Feature::ALL {
        tries.spawn(async move {
            // A panic of the reading client is a failure of this feature only.
            let found = tokio::spawn(feature.try_between(from, to)).await;
            (feature, found.unwrap_or_else(|panic| vec![format!("the test's own client failed: {panic}")]))
        });
    }
    let mut wrong = Vec::new();
    while let Some(outcome) = tries.join_next().await {
        let (feature, complaints) = outcome.unwrap();
        let unexplained = unexplained(&known_faults(from, to, feature), &complaints);
        if !unexplained.is_empty() {
            wrong.push(format!("{}:\n    {}", feature.title(), unexplained.join("\n    ")));
        }
    }
    assert!(wrong.is_empty(), "from {} to {}:\n  {}", from.name(), to.name(), wrong.join("\n  "));
}

macro_rules! pairs {
    ($($(#[$attribute:meta])* $name:ident: $from:ident => $to:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        $(#[$attribute])*
        async fn $name() {
            works(ServerMake::$from, ServerMake::$to).await;
        }
    )*};
}

pairs! {
    from_dovecot_to_cyrus: Dovecot => Cyrus;
    from_cyrus_to_dovecot: Cyrus => Dovecot;
    from_dovecot_to_courier: Dovecot => Courier;
    from_courier_to_dovecot: Courier => Dovecot;
    from_dovecot_to_greenmail: Dovecot => GreenMail;
    from_greenmail_to_dovecot: GreenMail => Dovecot;
    from_dovecot_to_goimap: Dovecot => GoImap;
    from_goimap_to_dovecot: GoImap => Dovecot;
    from_dovecot_to_pymap: Dovecot => Pymap;
    from_pymap_to_dovecot: Pymap => Dovecot;
    #[ignore = "by make test-servers"]
    from_cyrus_to_cyrus: Cyrus => Cyrus;
    #[ignore = "by make test-servers"]
    from_cyrus_to_courier: Cyrus => Courier;
    #[ignore = "by make test-servers"]
    from_cyrus_to_greenmail: Cyrus => GreenMail;
    #[ignore = "by make test-servers"]
    from_cyrus_to_goimap: Cyrus => GoImap;
    #[ignore = "by make test-servers"]
    from_cyrus_to_pymap: Cyrus => Pymap;
    #[ignore = "by make test-servers"]
    from_courier_to_cyrus: Courier => Cyrus;
    #[ignore = "by make test-servers"]
    from_courier_to_courier: Courier => Courier;
    #[ignore = "by make test-servers"]
    from_courier_to_greenmail: Courier => GreenMail;
    #[ignore = "by make test-servers"]
    from_courier_to_goimap: Courier => GoImap;
    #[ignore = "by make test-servers"]
    from_courier_to_pymap: Courier => Pymap;
    #[ignore = "by make test-servers"]
    from_greenmail_to_cyrus: GreenMail => Cyrus;
    #[ignore = "by make test-servers"]
    from_greenmail_to_courier: GreenMail => Courier;
    #[ignore = "by make test-servers"]
    from_greenmail_to_greenmail: GreenMail => GreenMail;
    #[ignore = "by make test-servers"]
    from_greenmail_to_goimap: GreenMail => GoImap;
    #[ignore = "by make test-servers"]
    from_greenmail_to_pymap: GreenMail => Pymap;
    #[ignore = "by make test-servers"]
    from_goimap_to_cyrus: GoImap => Cyrus;
    #[ignore = "by make test-servers"]
    from_goimap_to_courier: GoImap => Courier;
    #[ignore = "by make test-servers"]
    from_goimap_to_greenmail: GoImap => GreenMail;
    #[ignore = "by make test-servers"]
    from_goimap_to_goimap: GoImap => GoImap;
    #[ignore = "by make test-servers"]
    from_goimap_to_pymap: GoImap => Pymap;
    #[ignore = "by make test-servers"]
    from_pymap_to_cyrus: Pymap => Cyrus;
    #[ignore = "by make test-servers"]
    from_pymap_to_courier: Pymap => Courier;
    #[ignore = "by make test-servers"]
    from_pymap_to_greenmail: Pymap => GreenMail;
    #[ignore = "by make test-servers"]
    from_pymap_to_goimap: Pymap => GoImap;
    #[ignore = "by make test-servers"]
    from_pymap_to_pymap: Pymap => Pymap;
}
