//! The tape: its memory, its depth, its threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

use wgrad::{BackwardOptions, Device, Result, Tensor, tape};

/// Live nodes are counted for the whole process, so tests that count them run in a process of their own: see `alone`.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test of this binary in a process where no other test records nodes.
fn alone(name: &str, test: impl FnOnce() -> Result<()>) -> Result<()> {
    const KEY: &str = "WGRAD_TEST_ALONE";
    if std::env::var(KEY).is_ok_and(|value| value == name) {
        return test();
    }
    let _turn = turn();
    let path = format!("autograd::tape::{name}");
    let program = std::env::current_exe().unwrap();
    let output =
        std::process::Command::new(program).args(["--exact", &path]).env(KEY, name).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn nodes_die_with_their_owners() -> Result<()> {
    alone("nodes_die_with_their_owners", || {
        let live = || tape::stats().live;
        let x = Tensor::ones([3], Device::cpu())?.requires_grad_(true)?;
        assert_eq!(live(), 0);
        let y = x.exp()?.mul(&x)?;
        assert_eq!(live(), 3);
        let z = y.sum()?;
        drop(y);
        assert_eq!(live(), 4);
        z.backward()?;
        assert_eq!(live(), 4);
        drop(z);
        assert_eq!(live(), 0);
        // Nothing is recorded for what needs no gradient.
        let recorded = tape::stats().recorded;
        let plain = x.detach().exp()?.sum()?;
        assert_eq!((tape::stats().recorded, plain.requires_grad()), (recorded, false));
        // A gradient that belongs to a graph keeps it, and no longer than that.
        let y = x.mul(&x)?.sum()?;
        y.backward_with(BackwardOptions::new().create_graph(true))?;
        drop(y);
        assert!(live() > 0);
        x.zero_grad();
        assert_eq!(live(), 0);
        Ok(())
    })
}

#[test]
fn a_loop_without_backward_holds_no_nodes() -> Result<()> {
    alone("a_loop_without_backward_holds_no_nodes", || {
        let x = Tensor::ones([1], Device::cpu())?.requires_grad_(true)?;
        for _ in 0..20_000 {
            let loss = x.mul(2.0)?.add(1.0)?;
            assert!(loss.requires_grad());
        }
        let stats = tape::stats();
        assert_eq!(stats.live, 0);
        assert!(stats.slots <= 1024, "{stats:?}");
        Ok(())
    })
}

#[test]
fn deep_graphs() -> Result<()> {
    let x = Tensor::ones([1], Device::cpu())?.requires_grad_(true)?;
    let mut y = x.clone();
    for _ in 0..150_000 {
        y = y.add(1.0)?;
    }
    y.backward()?;
    assert_eq!((y.item::<f32>()?, x.grad().unwrap().item::<f32>()?), (150_001.0, 1.0));
    drop(y);
    // Dropped without backward, and without evaluation at the end.
    let mut y = x.clone();
    for _ in 0..150_000 {
        y = y.mul(1.0)?;
    }
    drop(y);
    Ok(())
}

#[test]
fn threads_sum_into_shared_leaves() -> Result<()> {
    let shared = Tensor::ones([4], Device::cpu())?.requires_grad_(true)?;
    let base = shared.mul(2.0)?;
    std::thread::scope(|scope| {
        let work = |seed: u32| {
            let (shared, base) = (shared.clone(), base.clone());
            move || -> Result<()> {
                for i in 0..50 {
                    let scale = f64::from((seed + i) % 3 + 1);
                    let loss = shared.mul(scale)?.add(&base)?.sum()?;
                    loss.backward()?;
                }
                Ok(())
            }
        };
        let threads: Vec<_> = (0..8).map(|seed| scope.spawn(work(seed))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })?;
    let scales: u32 = (0..8).flat_map(|seed| (0..50).map(move |i| (seed + i) % 3 + 1)).sum();
    let expected = (scales + 8 * 50 * 2) as f32;
    assert_eq!(shared.grad().unwrap().to_vec::<f32>()?, [expected; 4]);
    Ok(())
}

#[test]
fn handles_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<Tensor>();
    check::<wgrad::GradFn>();
    check::<wgrad::HookHandle>();
}
