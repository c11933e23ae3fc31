//! How long decisions take when many wait. To be looked at by people, so it fails for nothing: `cargo test --release --lib
//! admission::scale -- --ignored --nocapture`.

use super::*;

fn request(migration: usize, number: usize) -> SlotRequest {
    let share = |units, limit| ResourceShare { units, limit: Some(limit), starts_per_minute: None };
    let migration = ("ns".to_owned(), format!("m{migration:05}"));
    SlotRequest {
        uid: format!("{}-{number}", migration.1),
        name: format!("{}-{number}", migration.1),
        slots: 2,
        needs: ResourceNeeds::from([
            (LimitedResource::Operator, share(1, 1000)),
            (LimitedResource::Migration(migration.clone()), share(1, 20)),
            (LimitedResource::Host(format!("{}.example:993", migration.1)), share(2, 40)),
            (LimitedResource::Host("new.example:993".to_owned()), share(2, 200)),
            (LimitedResource::Account(format!("{}-{number}", migration.1)), share(1, 1)),
        ]),
        migration,
    }
}

fn tell(what: &str, times: usize, began: Instant) {
    let took = began.elapsed();
    println!("{what}: {times} in {took:?}, {:?} each", took / u32::try_from(times).unwrap());
}

#[test]
#[ignore = "measures, and tells"]
fn how_long_decisions_take_with_ten_thousand_waiting_migrations() {
    const MIGRATIONS: usize = 10_000;
    let (mut admission, now) = (SyncAdmission::new(1_000_000), Instant::now());
    let began = Instant::now();
    for migration in 0..MIGRATIONS {
        for number in 0..2 {
            admission.enqueue(request(migration, number));
        }
    }
    tell("mailboxes of 10,000 migrations taken into the queue", 2 * MIGRATIONS, began);
    let began = Instant::now();
    let mut running: Vec<_> = std::iter::from_fn(|| admission.admit_next(now, |_| true)).collect();
    tell("first decisions, up to the destination's limit", running.len() + 1, began);
    let began = Instant::now();
    for _ in 0..MIGRATIONS {
        assert_eq!(admission.admit_next(now, |_| true), None);
    }
    tell("decisions that give nothing", MIGRATIONS, began);
    let began = Instant::now();
    for turn in 0..MIGRATIONS {
        let place = turn % running.len();
        admission.release(&running[place].1);
        running[place] = admission.admit_next(now, |_| true).unwrap();
    }
    tell("ends, each with the decision that follows", MIGRATIONS, began);
    let began = Instant::now();
    let left: Vec<_> = (0..MIGRATIONS).map(|migration| request(migration, 1).uid).collect();
    for uid in &left {
        admission.give_up(uid);
    }
    tell("mailboxes taken out of the queue", left.len(), began);
}

#[test]
#[ignore = "measures, and tells"]
fn how_long_ends_and_decisions_take_where_many_namespaces_wait_and_where_two_have_all_migrations() {
    const MIGRATIONS: usize = 10_000;
    for namespaces in [1000, 2] {
        let (mut admission, now) = (SyncAdmission::new(1_000_000), Instant::now());
        for migration in 0..MIGRATIONS {
            let mut request = request(migration, 0);
            request.migration.0 = format!("ns{}", migration % namespaces);
            admission.enqueue(request);
        }
        let mut running: Vec<_> = std::iter::from_fn(|| admission.admit_next(now, |_| true)).collect();
        let began = Instant::now();
        for turn in 0..1000 {
            let place = turn % running.len();
            admission.release(&running[place].1);
            running[place] = admission.admit_next(now, |_| true).unwrap();
        }
        tell(
            &format!("ends, each with the decision that follows, {MIGRATIONS} migrations in {namespaces} namespaces"),
            1000,
            began,
        );
    }
}

#[test]
#[ignore = "measures, and tells"]
fn how_long_fifty_thousand_waiting_mailboxes_of_one_migration_take_to_be_removed() {
    const MAILBOXES: usize = 50_000;
    let mut admission = SyncAdmission::new(1_000_000);
    let began = Instant::now();
    for number in 0..MAILBOXES {
        admission.enqueue(request(0, number));
    }
    tell("mailboxes of one migration taken into the queue", MAILBOXES, began);
    // Against their order: the last to come goes first.
    let uids: Vec<_> = (0..MAILBOXES).rev().map(|number| request(0, number).uid).collect();
    let began = Instant::now();
    for uid in &uids {
        admission.give_up(uid);
    }
    tell("removed", MAILBOXES, began);
    assert_eq!(admission.waiting_count(), 0);
}
