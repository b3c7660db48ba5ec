//! Builds `shim.c` and links DPDK, only for the feature `dpdk`.

fn main() {
    #[cfg(feature = "dpdk")]
    dpdk();
}

#[cfg(feature = "dpdk")]
fn dpdk() {
    const SHIM: &str = "src/port/dpdk/shim.c";
    println!("cargo::rerun-if-changed={SHIM}");
    let found = pkg_config::Config::new()
        .atleast_version("22.11")
        .cargo_metadata(false)
        .env_metadata(true)
        .probe("libdpdk");
    let dpdk = match found {
        Ok(dpdk) => dpdk,
        Err(why) => {
            println!("cargo::error=the feature dpdk needs DPDK 22.11 or newer (Debian: libdpdk-dev): {why}");
            return;
        }
    };
    // Another DPDK in the same folder may have other inline functions.
    for folder in &dpdk.include_paths {
        let build_config = folder.join("rte_build_config.h");
        if build_config.exists() {
            println!("cargo::rerun-if-changed={}", build_config.display());
        }
    }
    println!("cargo::warning=DPDK {} found by pkg-config", dpdk.version);
    println!("cargo::rustc-env=WAYFARER_DPDK={}", dpdk.version);
    let mut shim = cc::Build::new();
    shim.file(SHIM).includes(&dpdk.include_paths).flag("-include").flag("rte_config.h");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        // DPDK's headers do not compile for less than this, DPDK's own baseline.
        shim.flag("-march=corei7");
    }
    // DPDK's headers are not ours to fix.
    shim.opt_level(3).flag("-Wno-deprecated-declarations").warnings(false).compile("dpdk_shim");
    for path in &dpdk.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    // Drivers are not part of the program: EAL loads them when it starts.
    for library in ["rte_eal", "rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring"] {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
}
