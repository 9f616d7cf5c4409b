package harness_test

import (
	"context"
	"net"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/wgexpose/wgexpose/internal/harness"
	"github.com/wgexpose/wgexpose/tunnel"
)

// grpcServer is the interop server of gRPC itself, with TLS if creds say so.
func grpcServer(t *testing.T, creds ...grpc.ServerOption) string {
	t.Helper()
	s := grpc.NewServer(creds...)
	testgrpc.RegisterTestServiceServer(s, interop.NewTestServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	return l.Addr().String()
}

// grpcClient calls a tunnel at its public address.
func grpcClient(t *testing.T, e *harness.Edge, public string) *grpc.ClientConn {
	t.Helper()
	u, err := url.Parse(public)
	if err != nil {
		t.Fatal(err)
	}
	c, err := grpc.NewClient("passthrough:///"+u.Host,
		grpc.WithTransportCredentials(credentials.NewTLS(e.TLSConfig())),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", e.Ready.HTTPS.String())
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// The interoperability cases of gRPC (grpc/doc/interop-test-descriptions.md) through
// edge and tunnel, to an upstream without TLS and to one with it. A case that fails
// ends the process with a line that names it.
func TestGRPCInterop(t *testing.T) {
	tlsServer := httptest.NewTLSServer(nil) // for its certificate
	tlsServer.Close()
	plain := harness.HTTP("plain", "http://"+grpcServer(t))
	secure := harness.HTTP("secure", "https://"+grpcServer(t, grpc.Creds(credentials.NewServerTLSFromCert(&tlsServer.TLS.Certificates[0]))))
	secure.InsecureUpstreamTLS = true
	plain.UpstreamProtocol, secure.UpstreamProtocol = tunnel.HTTP2, tunnel.HTTP2
	e := harness.Start(t, harness.Options{})
	run := e.AddAgent("laptop").Publish(plain, secure)
	for _, name := range []string{"plain", "secure"} {
		conn := grpcClient(t, e, run.WaitUp(name))
		tc := testgrpc.NewTestServiceClient(conn)
		for what, do := range map[string]func(context.Context){
			"empty_unary":                func(ctx context.Context) { interop.DoEmptyUnaryCall(ctx, tc) },
			"large_unary":                func(ctx context.Context) { interop.DoLargeUnaryCall(ctx, tc) },
			"client_streaming":           func(ctx context.Context) { interop.DoClientStreaming(ctx, tc) },
			"server_streaming":           func(ctx context.Context) { interop.DoServerStreaming(ctx, tc) },
			"ping_pong":                  func(ctx context.Context) { interop.DoPingPong(ctx, tc) },
			"empty_stream":               func(ctx context.Context) { interop.DoEmptyStream(ctx, tc) },
			"timeout_on_sleeping_server": func(ctx context.Context) { interop.DoTimeoutOnSleepingServer(ctx, tc) },
			"cancel_after_begin":         func(ctx context.Context) { interop.DoCancelAfterBegin(ctx, tc) },
			"cancel_after_first_response": func(ctx context.Context) {
				interop.DoCancelAfterFirstResponse(ctx, tc)
			},
			"custom_metadata":         func(ctx context.Context) { interop.DoCustomMetadata(ctx, tc) },
			"status_code_and_message": func(ctx context.Context) { interop.DoStatusCodeAndMessage(ctx, tc) },
			"special_status_message":  func(ctx context.Context) { interop.DoSpecialStatusMessage(ctx, tc) },
			"unimplemented_method":    func(ctx context.Context) { interop.DoUnimplementedMethod(ctx, conn) },
			"unimplemented_service": func(ctx context.Context) {
				interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
			},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				do(ctx)
			})
		}
	}
}
