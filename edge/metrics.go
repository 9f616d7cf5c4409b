package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/localweb"
)

const (
	// Who reads metrics is one Prometheus or a few; what comes beyond waits.
	maxMetricsConns = 32
	maxMetricsReads = 4

	metricsTime = 30 * time.Second // for one answer
)

// serveMetrics answers GET /metrics in Prometheus' text format until ctx ends. It
// closes l. Nothing can be changed through it, and there are no secrets in it. On
// loopback it answers to this machine's own names alone.
func serveMetrics(ctx context.Context, l net.Listener, c prometheus.Collector, log *slog.Logger) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError, // what can be told is told
		MaxRequestsInFlight: maxMetricsReads,
	}))
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "The metrics of this edge are at /metrics.", http.StatusNotFound)
	})
	var handler http.Handler = mux
	if listenerAddr(l).Addr().Unmap().IsLoopback() {
		handler = forThisMachine(mux)
	}
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      metricsTime,
		IdleTimeout:       2 * time.Minute, // Prometheus asks each minute, or more often
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(netutil.LimitListener(l, maxMetricsConns)); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve metrics: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-gctx.Done()
		return srv.Close() // nothing that is under way is worth waiting for
	})
	return g.Wait()
}

// forThisMachine keeps other web sites from reading what is there for programs of
// this machine. Elsewhere a Host may be anything: Prometheus asks by the names that
// its administrator gave.
func forThisMachine(next http.Handler) http.Handler {
	hosts := localweb.NewHosts()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !hosts.Allow(r.Host) {
			http.Error(w, "The metrics of this edge are not served under this host name, because they listen on loopback: ask for http://localhost or http://127.0.0.1, or give --metrics an address that others may use.", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// collector reads a running edge's numbers when they are asked for. There is
// nothing that it keeps, and nothing that has to be kept up for it.
type collector struct {
	r     *running
	admin *storeAdmin
	d     descs
}

func newCollector(r *running, admin *storeAdmin) *collector { return &collector{r, admin, newDescs()} }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("wgexpose_"+name, help, labels, nil)
}

// descs are all metrics of an edge.
type descs struct {
	build, started, unapplied *prometheus.Desc

	agents, agentUp, agentRx, agentTx, tunnels *prometheus.Desc

	certExpiry, certState, certObtained, certFailed *prometheus.Desc

	conns, open, requests, answers, refused, relayed *prometheus.Desc

	streams, streamsTotal, streamsRefused, streamsDropped *prometheus.Desc

	overlayConns, retransmits, resets, received, sent, filtered, dropped *prometheus.Desc
}

func newDescs() descs {
	return descs{
		build:     desc("build_info", "1; the version of the program", "version", "goversion"),
		started:   desc("start_time_seconds", "When this edge was started, Unix time"),
		unapplied: desc("unapplied", "1 while a change could not be applied, such as a TCP port that another program has; the log and \"wgexpose edge status\" say what"),

		agents:  desc("agents", "Agents by state: up, away", "state"),
		agentUp: desc("agent_up", "1 while the agent is up", "agent"),
		agentRx: desc("agent_received_bytes_total", "WireGuard's bytes from the agent, since this edge was started", "agent"),
		agentTx: desc("agent_sent_bytes_total", "WireGuard's bytes to the agent, since this edge was started", "agent"),
		tunnels: desc("tunnels", "Tunnels by kind and state: up, away, error (the agent cannot reach the upstream), reserved", "kind", "state"),

		certExpiry:   desc("certificate_expiry_timestamp_seconds", "When the certificate expires, Unix time", "name", "source", "file"),
		certState:    desc("certificate_state", "1; state is one of valid, pending, expiring, failing, expired, failed, broken", "name", "source", "file", "state"),
		certObtained: desc("certificate_obtained_total", "Attempts to get or renew a certificate that brought one"),
		certFailed:   desc("certificate_failures_total", "Attempts to get or renew a certificate that failed"),

		conns:    desc("visitor_connections_total", "Visitors' connections by the way that they came: https, http, http3, tcp, tls (carried, not served)", "way"),
		open:     desc("visitor_connections", "Visitors' connections that are open; those that became a WebSocket count as requests", "way"),
		requests: desc("requests_in_progress", "Requests under way", "way"),
		answers:  desc("requests_total", "Requests that have ended, by class of the answer; other: upgraded, or broken off before there was one", "way", "class"),
		refused:  desc("tls_handshakes_refused_total", "Handshakes of visitors that came to nothing: too_many, too_fast, bad_hello, unknown_name, failed", "reason"),
		relayed:  desc("relayed_bytes_total", "Bytes of carried connections (tcp, tls) that have ended: from_visitor, to_visitor", "direction"),

		streams:        desc("streams", "Agents' connections over TLS that carry WireGuard packets"),
		streamsTotal:   desc("streams_total", "Such connections so far"),
		streamsRefused: desc("streams_refused_total", "Such connections that found no place"),
		streamsDropped: desc("streams_dropped_packets_total", "WireGuard packets for agents whose connection took them too slowly"),

		overlayConns: desc("overlay_connections", "TCP connections inside of WireGuard"),
		retransmits:  desc("overlay_retransmits_total", "TCP segments inside of WireGuard that were sent again"),
		resets:       desc("overlay_resets_total", "TCP resets sent inside of WireGuard"),
		received:     desc("overlay_received_packets_total", "Packets out of WireGuard"),
		sent:         desc("overlay_sent_packets_total", "Packets into WireGuard"),
		filtered:     desc("overlay_filtered_packets_total", "Packets out of WireGuard that the overlay's rules refuse"),
		dropped:      desc("overlay_dropped_packets_total", "Packets lost between WireGuard and TCP"),
	}
}

// Describe implements prometheus.Collector. Without a description the registry
// takes what Collect brings.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := sink{out}
	s.gauge(c.d.build, 1, c.r.cfg.Version, runtime.Version())
	s.gauge(c.d.started, seconds(c.r.started))
	s.gauge(c.d.unapplied, truth(c.r.reconcile.unfinished()))
	c.control(s)
	c.certificates(s)
	c.visitors(s)
	open, total, refused := c.r.streams.tally()
	s.gauge(c.d.streams, float64(open))
	s.counter(c.d.streamsTotal, total)
	s.counter(c.d.streamsRefused, refused)
	s.counter(c.d.streamsDropped, c.r.streams.streams.Dropped())
	st := c.r.stack.Stats()
	s.gauge(c.d.overlayConns, float64(st.Connections))
	s.counter(c.d.retransmits, st.Retransmits)
	s.counter(c.d.resets, st.Resets)
	s.counter(c.d.received, st.PacketsReceived)
	s.counter(c.d.sent, st.PacketsSent)
	s.counter(c.d.filtered, st.Filtered)
	s.counter(c.d.dropped, st.Dropped)
}

// control is what the table and WireGuard say.
func (c *collector) control(s sink) {
	snap := c.r.reconcile.snap.Load()
	rows, err := c.admin.agentRows(snap)
	if err != nil {
		s.out <- prometheus.NewInvalidMetric(c.d.agents, err)
		return
	}
	up := 0
	for _, row := range rows {
		if row.State == StateUp {
			up++
		}
		s.gauge(c.d.agentUp, truth(row.State == StateUp), row.Name)
		s.counter(c.d.agentRx, row.Rx, row.Name)
		s.counter(c.d.agentTx, row.Tx, row.Name)
	}
	s.gauge(c.d.agents, float64(up), StateUp)
	s.gauge(c.d.agents, float64(len(rows)-up), StateAway)
	type class struct{ kind, state string }
	tunnels := make(map[class]int)
	for _, row := range c.admin.tunnelRows(snap) {
		tunnels[class{string(row.Kind), row.State}]++
	}
	for k, n := range tunnels {
		s.gauge(c.d.tunnels, float64(n), k.kind, k.state)
	}
}

func (c *collector) certificates(s sink) {
	if c.r.certs == nil {
		return
	}
	obtained, failed := c.r.certs.Attempts()
	s.counter(c.d.certObtained, obtained)
	s.counter(c.d.certFailed, failed)
	type identity struct{ name, source, file string }
	seen := make(map[identity]bool) // the same labels twice would be an error
	for _, status := range c.r.certs.Status() {
		id := identity{status.Name, status.Source, status.File}
		if seen[id] {
			continue
		}
		seen[id] = true
		c.certificate(s, status)
	}
}

func (c *collector) certificate(s sink, status certs.Status) {
	s.gauge(c.d.certState, 1, status.Name, status.Source, status.File, status.State)
	if !status.Until.IsZero() {
		s.gauge(c.d.certExpiry, seconds(status.Until), status.Name, status.Source, status.File)
	}
}

func (c *collector) visitors(s sink) {
	t := c.r.front.tally
	for way, w := range t.ways {
		s.counter(c.d.conns, w.total.Load(), way)
		s.gauge(c.d.open, float64(w.open.Load()), way)
		if way == wayTCP || way == wayTLS {
			continue // they have no requests
		}
		s.gauge(c.d.requests, float64(w.requests.Load()), way)
		for i, class := range answerClasses {
			s.counter(c.d.answers, w.answers[i].Load(), way, class)
		}
	}
	for reason, n := range t.refused {
		s.counter(c.d.refused, n.Load(), reason)
	}
	s.counter(c.d.relayed, t.fromVisitor.Load(), "from_visitor")
	s.counter(c.d.relayed, t.toVisitor.Load(), "to_visitor")
}

// sink takes values.
type sink struct{ out chan<- prometheus.Metric }

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.send(d, prometheus.GaugeValue, v, labels)
}

func (s sink) counter(d *prometheus.Desc, v uint64, labels ...string) {
	s.send(d, prometheus.CounterValue, float64(v), labels)
}

// send gives an error to whoever asked for the metrics, instead of a value that
// cannot be told: a label that is no UTF-8.
func (s sink) send(d *prometheus.Desc, t prometheus.ValueType, v float64, labels []string) {
	m, err := prometheus.NewConstMetric(d, t, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	s.out <- m
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
