//go:build linux

// Package reference has what wgexpose is measured against: the same job done
// the way that user-space WireGuard tools (newt, wireproxy, tunwg) do it today,
// with wireguard-go's own tun/netstack and its defaults, and a plain TLS
// reverse proxy with no tunnel behind it.
//
// The edge takes visitors on a public TCP port, dials the agent through its
// netstack, and the agent dials the origin:
//
//	visitor → RunEdge: net.Listen … Net.DialContextTCPAddrPort → WireGuard → RunAgent: Net.ListenTCPAddrPort … net.Dial → origin
package reference

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/netstack"
)

// MTU of the tunnel: wireguard-go's default.
const MTU = device.DefaultMTU

// Inner addresses.
var (
	edgeAddr  = netip.MustParseAddr("10.77.0.1")
	agentAddr = netip.MustParseAddr("10.77.0.2")
)

// agentPort is where the agent's netstack listens.
const agentPort = 7

// Keys of one node, in hex, as wireguard-go's configuration wants them.
type Keys struct {
	Private string `json:"private"`
	Public  string `json:"public"`
}

// NewKeys draws a pair.
func NewKeys() (Keys, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return Keys{}, err
	}
	return Keys{Private: hex.EncodeToString(key.Bytes()), Public: hex.EncodeToString(key.PublicKey().Bytes())}, nil
}

// EdgeConfig is what RunEdge needs.
type EdgeConfig struct {
	Private string `json:"private"` // its own key
	Peer    string `json:"peer"`    // the agent's public key
	Host    string `json:"host"`    // address for visitors
}

// AgentConfig is what RunAgent needs.
type AgentConfig struct {
	Private  string `json:"private"`  // its own key
	Peer     string `json:"peer"`     // the edge's public key
	Endpoint string `json:"endpoint"` // where the edge's WireGuard is
	Origin   string `json:"origin"`   // what visitors reach
}

// Ready tells that a node works.
type Ready struct {
	Event  string `json:"event"`            // "ready"
	WG     int    `json:"wg,omitempty"`     // edge: UDP port
	Public string `json:"public,omitempty"` // edge, proxy: address for visitors
}

// RunEdge serves visitors until ctx ends.
func RunEdge(ctx context.Context, cfg EdgeConfig, ready func(Ready) error) error {
	dev, tnet, err := open(edgeAddr, cfg.Private, fmt.Sprintf("public_key=%s\nallowed_ip=%s/32\n", cfg.Peer, agentAddr))
	if err != nil {
		return err
	}
	defer dev.Close()
	port, err := listenPort(dev)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(cfg.Host, "0"))
	if err != nil {
		return err
	}
	defer ln.Close()
	if err := ready(Ready{Event: "ready", WG: port, Public: ln.Addr().String()}); err != nil {
		return err
	}
	return forward(ctx, ln, func(ctx context.Context) (net.Conn, error) {
		return tnet.DialContextTCPAddrPort(ctx, netip.AddrPortFrom(agentAddr, agentPort))
	})
}

// RunAgent serves the edge until ctx ends.
func RunAgent(ctx context.Context, cfg AgentConfig, ready func(Ready) error) error {
	dev, tnet, err := open(agentAddr, cfg.Private, fmt.Sprintf(
		"public_key=%s\nendpoint=%s\nallowed_ip=0.0.0.0/0\npersistent_keepalive_interval=25\n", cfg.Peer, cfg.Endpoint))
	if err != nil {
		return err
	}
	defer dev.Close()
	ln, err := tnet.ListenTCPAddrPort(netip.AddrPortFrom(agentAddr, agentPort))
	if err != nil {
		return err
	}
	defer ln.Close()
	if err := ready(Ready{Event: "ready"}); err != nil {
		return err
	}
	var dialer net.Dialer
	return forward(ctx, ln, func(ctx context.Context) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", cfg.Origin)
	})
}

// open brings up a device with one peer over a netstack.
func open(addr netip.Addr, private, peer string) (*device.Device, *netstack.Net, error) {
	tun, tnet, err := netstack.CreateNetTUN([]netip.Addr{addr}, nil, MTU)
	if err != nil {
		return nil, nil, err
	}
	dev := device.NewDevice(tun, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, ""))
	if err := dev.IpcSet("private_key=" + private + "\nlisten_port=0\n" + peer); err != nil {
		dev.Close()
		return nil, nil, err
	}
	if err := dev.Up(); err != nil {
		dev.Close()
		return nil, nil, err
	}
	return dev, tnet, nil
}

// listenPort asks a device for its UDP port.
func listenPort(dev *device.Device) (int, error) {
	state, err := dev.IpcGet()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(state) {
		if port, ok := strings.CutPrefix(line, "listen_port="); ok {
			return strconv.Atoi(strings.TrimSpace(port))
		}
	}
	return 0, errors.New("the device tells no UDP port")
}

// forward joins each connection of ln with one from dial until ctx ends. As in
// those tools, the end of either direction ends both.
func forward(ctx context.Context, ln net.Listener, dial func(context.Context) (net.Conn, error)) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		a, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		conns.Go(func() {
			defer a.Close()
			b, err := dial(ctx)
			if err != nil {
				return // the visitor sees its connection end, and counts it
			}
			defer b.Close()
			defer context.AfterFunc(ctx, func() { a.Close(); b.Close() })()
			var other sync.WaitGroup
			other.Go(func() { pipe(a, b) })
			pipe(b, a)
			other.Wait()
		})
	}
}

// pipe copies one way, and then closes both. How it ended is the visitor's to
// judge.
func pipe(dst, src net.Conn) {
	_, _ = io.Copy(dst, src)
	dst.Close()
	src.Close()
}
