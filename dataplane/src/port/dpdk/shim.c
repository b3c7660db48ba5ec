/* Makes DPDK's inline functions, macros and large structures available to a linker. */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_version.h>

/* The layout that `sys::Mbuf` has. The build fails if another DPDK has moved a field. */
_Static_assert(offsetof(struct rte_mbuf, buf_addr) == 0, "buf_addr");
_Static_assert(offsetof(struct rte_mbuf, data_off) == 16, "data_off");
_Static_assert(offsetof(struct rte_mbuf, refcnt) == 18, "refcnt");
_Static_assert(offsetof(struct rte_mbuf, nb_segs) == 20, "nb_segs");
_Static_assert(offsetof(struct rte_mbuf, ol_flags) == 24, "ol_flags");
_Static_assert(offsetof(struct rte_mbuf, pkt_len) == 36, "pkt_len");
_Static_assert(offsetof(struct rte_mbuf, data_len) == 40, "data_len");
_Static_assert(offsetof(struct rte_mbuf, vlan_tci) == 42, "vlan_tci");
_Static_assert(offsetof(struct rte_mbuf, buf_len) == 54, "buf_len");
_Static_assert(offsetof(struct rte_mbuf, pool) == 56, "pool");
_Static_assert(offsetof(struct rte_mbuf, next) == 64, "next");
_Static_assert(offsetof(struct rte_mbuf, tx_offload) == 72, "tx_offload");
_Static_assert(sizeof(struct rte_mbuf) == 128, "rte_mbuf");

/* If a device looks into a tunnel, GOOD is about the inner header. */
const uint64_t wf_rx_checksum_mask = RTE_MBUF_F_RX_IP_CKSUM_MASK | RTE_MBUF_F_RX_OUTER_IP_CKSUM_BAD;
const uint64_t wf_rx_checksum_good = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
const uint64_t wf_tx_udp6_checksum = RTE_MBUF_F_TX_IPV6 | RTE_MBUF_F_TX_UDP_CKSUM;
const uint64_t wf_rx_vlan_stripped = RTE_MBUF_F_RX_VLAN_STRIPPED;
const uint64_t wf_tx_vlan = RTE_MBUF_F_TX_VLAN;

/* Starts EAL, and leaves the caller on its cores, although EAL pins it to one. */
int wf_eal_init(int argc, char **argv)
{
	cpu_set_t cores;
	int has_cores = pthread_getaffinity_np(pthread_self(), sizeof(cores), &cores) == 0;
	int done = rte_eal_init(argc, argv);

	if (has_cores)
		pthread_setaffinity_np(pthread_self(), sizeof(cores), &cores);
	fflush(NULL);
	return done;
}

/* Returns the NUMA node of a core. */
int wf_socket_of(unsigned int core)
{
	return (int)rte_lcore_to_socket_id(core);
}

const char *wf_last_error(void)
{
	return rte_strerror(rte_errno);
}

int wf_is_registered(void)
{
	return rte_lcore_id() != LCORE_ID_ANY;
}

int wf_alloc(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

/* Takes back mbufs of one segment that nobody else refers to. */
void wf_put(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	rte_mempool_put_bulk(pool, (void **)mbufs, count);
}

void wf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

/* Copies all segments of a packet, `pkt_len` bytes, to one place. */
void wf_copy(const struct rte_mbuf *mbuf, uint8_t *to)
{
	for (; mbuf != NULL; mbuf = mbuf->next) {
		memcpy(to, rte_pktmbuf_mtod(mbuf, const uint8_t *), mbuf->data_len);
		to += mbuf->data_len;
	}
}

/* Returns `tx_offload` of a UDP datagram over IPv6 without extension headers. */
uint64_t wf_udp6_layout(void)
{
	struct rte_mbuf mbuf = {.l2_len = 14, .l3_len = 40};

	return mbuf.tx_offload;
}

uint16_t wf_rx(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t wf_tx(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

/* `sys::Info`. */
struct info {
	char driver[64];
	uint16_t queues;
};

int wf_info(uint16_t port, struct info *info)
{
	struct rte_eth_dev_info dev;
	int failed = rte_eth_dev_info_get(port, &dev);

	if (failed)
		return failed;
	snprintf(info->driver, sizeof(info->driver), "%s", dev.driver_name ? dev.driver_name : "?");
	info->queues = RTE_MIN(dev.max_rx_queues, dev.max_tx_queues);
	return 0;
}

/* `sys::Setup`. */
struct setup {
	struct rte_mempool *const *pools; /* one for each queue */
	uint16_t queues;
	uint16_t descriptors;
	uint16_t mtu; /* 0: leave unchanged */
	uint8_t promiscuous;
	uint8_t has_mac;
	struct rte_ether_addr mac;
	/* Results. */
	const char *step; /* the step that failed */
	uint16_t rx_descriptors;
	uint16_t tx_descriptors;
	uint8_t spreading; /* `Spread` */
	uint8_t verifies;  /* whether it verifies IPv4 checksums */
	uint8_t fills;     /* whether it fills in UDP checksums; as input, whether it should */
	uint8_t strips;    /* whether it takes 802.1Q tags off; as input, whether it should */
	uint8_t inserts;   /* whether it puts 802.1Q tags on; as input, whether it should */
	uint8_t fixed_mtu; /* whether the driver sets no MTU */
};

enum spreading { ONE_QUEUE, SPI_BY_RULE, SPI_BY_HASH, ADDRESSES, UNKNOWN };

/* Requests a queue for each SPI, whatever encapsulates ESP. Returns whether the device does so, at
 * least for ESP over IPv4. */
static int spread_by_spi(uint16_t port, uint16_t queues)
{
	static const enum rte_flow_item_type ip[] = {RTE_FLOW_ITEM_TYPE_IPV4, RTE_FLOW_ITEM_TYPE_IPV6};
	uint16_t all[RTE_MAX_QUEUES_PER_PORT];
	struct rte_flow_error error = {0};
	int spread = 0;

	for (uint16_t queue = 0; queue < queues; queue++)
		all[queue] = queue;
	for (int udp = 0; udp < 2; udp++) {
		for (int version = 0; version < 2; version++) {
			struct rte_flow_attr attr = {.ingress = 1};
			struct rte_flow_item pattern[5] = {{.type = RTE_FLOW_ITEM_TYPE_ETH}, {.type = ip[version]}};
			struct rte_flow_action_rss rss = {.types = RTE_ETH_RSS_ESP, .queue_num = queues, .queue = all};
			struct rte_flow_action actions[] = {
				{.type = RTE_FLOW_ACTION_TYPE_RSS, .conf = &rss},
				{.type = RTE_FLOW_ACTION_TYPE_END},
			};
			int at = 2;

			if (udp)
				pattern[at++].type = RTE_FLOW_ITEM_TYPE_UDP;
			pattern[at++].type = RTE_FLOW_ITEM_TYPE_ESP;
			pattern[at].type = RTE_FLOW_ITEM_TYPE_END;
			if (rte_flow_validate(port, &attr, pattern, actions, &error) == 0 &&
			    rte_flow_create(port, &attr, pattern, actions, &error) != NULL)
				spread |= !udp && !version;
		}
	}
	if (!spread)
		rte_flow_flush(port, &error);
	return spread;
}

/* Of each device, whether it was removed. EAL's interrupt thread sets it. */
static atomic_bool removed[RTE_MAX_ETHPORTS];

/* Notes that a device was removed, such as a NIC that was pulled out. EAL calls this. */
int wf_note_removal(uint16_t port, enum rte_eth_event_type event, void *unused, void *result)
{
	(void)event, (void)unused, (void)result;
	if (port < RTE_MAX_ETHPORTS)
		atomic_store(&removed[port], 1);
	return 0;
}

/* Configures and starts a device. If that fails, `step` says what the driver could not do. */
int wf_start(uint16_t port, struct setup *s)
{
	struct rte_eth_dev_info dev;
	struct rte_eth_conf conf = {0};
	uint16_t rx = s->descriptors, tx = s->descriptors, mtu = 0;
	uint64_t rss = 0;
	int failed;

	s->step = "report its capabilities";
	if ((failed = rte_eth_dev_info_get(port, &dev)))
		return failed;
	if (s->queues > 1) {
		rss = dev.flow_type_rss_offloads & (RTE_ETH_RSS_ESP | RTE_ETH_RSS_IP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_TCP);
		conf.rx_adv_conf.rss_conf.rss_hf = rss;
		conf.rxmode.mq_mode = rss ? RTE_ETH_MQ_RX_RSS : RTE_ETH_MQ_RX_NONE;
	}
	/* Fast free requires that a queue sends mbufs of one pool only, each referred to once. */
	conf.txmode.offloads = dev.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
	if (s->fills)
		conf.txmode.offloads |= dev.tx_offload_capa & RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
	s->fills = (conf.txmode.offloads & RTE_ETH_TX_OFFLOAD_UDP_CKSUM) != 0;
	if (s->inserts)
		conf.txmode.offloads |= dev.tx_offload_capa & RTE_ETH_TX_OFFLOAD_VLAN_INSERT;
	s->inserts = (conf.txmode.offloads & RTE_ETH_TX_OFFLOAD_VLAN_INSERT) != 0;
	conf.rxmode.offloads = dev.rx_offload_capa & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
	s->verifies = conf.rxmode.offloads != 0;
	if (s->strips)
		conf.rxmode.offloads |= dev.rx_offload_capa & RTE_ETH_RX_OFFLOAD_VLAN_STRIP;
	s->strips = (conf.rxmode.offloads & RTE_ETH_RX_OFFLOAD_VLAN_STRIP) != 0;
	conf.intr_conf.rmv = (*dev.dev_flags & RTE_ETH_DEV_INTR_RMV) != 0;
	/* If it is not set, it is 1500. */
	conf.rxmode.mtu = s->mtu || rte_eth_dev_get_mtu(port, &mtu) ? s->mtu : mtu;
	s->step = "configure it";
	if ((failed = rte_eth_dev_configure(port, s->queues, s->queues, &conf)))
		return failed;
	s->step = "set the length of its rings";
	if ((failed = rte_eth_dev_adjust_nb_rx_tx_desc(port, &rx, &tx)))
		return failed;
	for (uint16_t queue = 0; queue < s->queues; queue++) {
		struct rte_eth_rxconf rx_conf = dev.default_rxconf;
		struct rte_eth_txconf tx_conf = dev.default_txconf;
		int socket = rte_eth_dev_socket_id(port);

		rx_conf.offloads = conf.rxmode.offloads;
		tx_conf.offloads = conf.txmode.offloads;
		s->step = "set up a receive queue";
		if ((failed = rte_eth_rx_queue_setup(port, queue, rx, socket, &rx_conf, s->pools[queue])))
			return failed;
		s->step = "set up a transmit queue";
		if ((failed = rte_eth_tx_queue_setup(port, queue, tx, socket, &tx_conf)))
			return failed;
	}
	/* Every header is read here, whatever a NIC says about it: spare drivers the work of
	 * finding the packet type. */
	rte_eth_dev_set_ptypes(port, RTE_PTYPE_UNKNOWN, NULL, 0);
	if (s->mtu) {
		s->step = "set its MTU";
		failed = rte_eth_dev_set_mtu(port, s->mtu);
		s->fixed_mtu = failed == -ENOTSUP;
		if (failed && !s->fixed_mtu)
			return failed;
	}
	if (s->has_mac) {
		s->step = "set its MAC address";
		if ((failed = rte_eth_dev_default_mac_addr_set(port, &s->mac)))
			return failed;
	}
	atomic_store(&removed[port], 0);
	s->step = "tell of its removal";
	if ((failed = rte_eth_dev_callback_register(port, RTE_ETH_EVENT_INTR_RMV, wf_note_removal, NULL)))
		return failed;
	s->step = "start it";
	if ((failed = rte_eth_dev_start(port)))
		return failed;
	s->rx_descriptors = rx;
	s->tx_descriptors = tx;
	if (s->queues == 1)
		s->spreading = ONE_QUEUE;
	else if (spread_by_spi(port, s->queues))
		s->spreading = SPI_BY_RULE;
	else
		s->spreading = rss & RTE_ETH_RSS_ESP ? SPI_BY_HASH : rss ? ADDRESSES : UNKNOWN;
	s->step = "receive frames to other MAC addresses";
	if (s->promiscuous)
		return rte_eth_promiscuous_enable(port);
	rte_eth_promiscuous_disable(port);
	/* Neighbour discovery uses multicast. A device that cannot filter receives everything anyway. */
	rte_eth_allmulticast_enable(port);
	return 0;
}

/* Stops, closes and releases a device. */
void wf_close(uint16_t port)
{
	struct rte_eth_dev_info dev;
	int known = rte_eth_dev_info_get(port, &dev) == 0;

	rte_eth_dev_callback_unregister(port, RTE_ETH_EVENT_INTR_RMV, wf_note_removal, NULL);
	rte_eth_dev_stop(port);
	rte_eth_dev_close(port);
	if (known && dev.device != NULL)
		rte_dev_remove(dev.device);
}

int wf_port_of(const char *name, uint16_t *port)
{
	return rte_eth_dev_get_port_by_name(name, port);
}

/* `sys::State`. */
struct state {
	uint64_t missed;
	uint64_t rx_errors;
	uint64_t tx_errors;
	uint32_t speed; /* Mbit/s; 0: not known */
	uint8_t is_up;
	uint8_t is_full_duplex;
	uint8_t is_promiscuous;
	uint8_t is_gone;
};

void wf_state(uint16_t port, struct state *state)
{
	struct rte_eth_link link;
	struct rte_eth_stats stats;

	memset(state, 0, sizeof(*state));
	memset(&link, 0, sizeof(link));
	/* Few drivers report it by an interrupt, some if they are asked. */
	state->is_gone = atomic_load(&removed[port]) || rte_eth_dev_is_removed(port);
	if (state->is_gone)
		return;
	if (rte_eth_link_get_nowait(port, &link) == 0) {
		state->is_up = link.link_status;
		state->is_full_duplex = link.link_duplex;
		state->speed = link.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : link.link_speed;
	}
	if (rte_eth_stats_get(port, &stats) == 0) {
		state->missed = stats.imissed + stats.rx_nombuf;
		state->rx_errors = stats.ierrors;
		state->tx_errors = stats.oerrors;
	}
	state->is_promiscuous = rte_eth_promiscuous_get(port) == 1;
}

/* Fills in up to `most` of the device's own counters, whose names have up to 63 bytes. Returns how
 * many there are. */
int wf_counters(uint16_t port, char (*names)[RTE_ETH_XSTATS_NAME_SIZE], uint64_t *values, unsigned int most)
{
	struct rte_eth_xstat stats[most ? most : 1];
	int there = rte_eth_xstats_get(port, most ? stats : NULL, most);

	if (there <= 0 || (unsigned int)there > most)
		return there;
	if (rte_eth_xstats_get_names(port, (struct rte_eth_xstat_name *)names, most) != there)
		return 0;
	for (int at = 0; at < there; at++)
		values[at] = stats[at].value;
	return there;
}

/* The layouts that `sys.rs` has. */
_Static_assert(sizeof(struct info) == 66 && offsetof(struct info, queues) == 64, "info");
_Static_assert(sizeof(struct setup) == 48 && offsetof(struct setup, mac) == 16 && offsetof(struct setup, step) == 24 &&
	       offsetof(struct setup, rx_descriptors) == 32 && offsetof(struct setup, fixed_mtu) == 41, "setup");
_Static_assert(sizeof(struct state) == 32 && offsetof(struct state, is_gone) == 31, "state");
_Static_assert(sizeof(struct rte_eth_xstat_name) == RTE_ETH_XSTATS_NAME_SIZE, "rte_eth_xstat_name");
_Static_assert(RTE_ETH_XSTATS_NAME_SIZE == 64, "RTE_ETH_XSTATS_NAME_SIZE");
