package configs

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestSeveralFiles(t *testing.T) {
	isolate(t)
	base := write(t, "log_level: info\nlog_format: json\ntunnels:\n  app: {kind: http, upstream: 1}\n  ssh: {kind: tcp, upstream: 22}\n")
	over := write(t, "\nlog_level: debug\ntunnels:\n  app: {kind: http, upstream: 2}\n  new: {kind: tcp, upstream: 3}\n")
	cfg, err := LoadAgent(flagSet(t, AgentFlags, "--config", base, "--config", over))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.LogLevel.String() != "DEBUG" || cfg.LogFormat != LogJSON || cfg.File != base || len(cfg.More) != 1 || cfg.More[0] != over {
		t.Errorf("got %+v", cfg)
	}
	var got []string
	for _, tn := range cfg.Tunnels {
		got = append(got, tn.Name+" "+tn.Upstream)
	}
	if want := "app http://127.0.0.1:2, ssh tcp://127.0.0.1:22, new tcp://127.0.0.1:3"; strings.Join(got, ", ") != want {
		t.Errorf("tunnels %q, want %s", got, want)
	}

	t.Setenv(configVariable, base+string(filepath.ListSeparator)+over)
	if again, err := LoadAgent(nil); err != nil || len(again.Tunnels) != 3 {
		t.Errorf("from the environment: %+v, %v", again, err)
	}

	bad := write(t, "\nnope: 1\nlog_level: loud\nlog_level: info\ntunnels:\n  more: {kind: http}\n")
	_, err = LoadAgent(flagSet(t, AgentFlags, "--config", base, "--config", bad))
	for _, want := range []string{bad + ":2: nope: unknown key", bad + ":4: log_level: set twice; it is on line 3", bad + ":6: tunnels.more.upstream: missing"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	syntax := write(t, "a: [\n")
	if _, err := LoadAgent(flagSet(t, AgentFlags, "--config", base, "--config", syntax)); err == nil || !strings.Contains(err.Error(), syntax+":") {
		t.Errorf("err = %v", err)
	}
	if _, err := LoadAgent(flagSet(t, AgentFlags, "--config", base, "--config", base+".not")); err == nil {
		t.Error("a file that is not there is passed over")
	}
}

// TestTunnelOverTunnel: a later file says of a tunnel what is other than before, and
// what is wrong with it is told of the file that says so.
func TestTunnelOverTunnel(t *testing.T) {
	isolate(t)
	base := write(t, `tunnels:
  app: &app
    kind: http
    upstream: 8089
    url: app.example.com
    basic_auth: ["me:secret-1", "you:secret-2"]
  same: *app
  ssh: {kind: tcp, upstream: 22, port: 20022}
`)
	load := func(texts ...string) (Agent, []string, error) {
		t.Helper()
		arguments, files := []string{"--config", base}, []string{base}
		for _, text := range texts {
			files = append(files, write(t, text))
			arguments = append(arguments, "--config", files[len(files)-1])
		}
		cfg, err := LoadAgent(flagSet(t, AgentFlags, arguments...))
		return cfg, files, err
	}
	cfg, _, err := load("tunnels:\n  same: {url: same.example.com}\n",
		"tunnels:\n  app: {upstream: 3000, basic_auth: 'dev:secret-3'}\n  ssh: {port: 20023}\n", "tunnels:\n  app: {compression: true}\n  ssh:\n", "tunnels:\n", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Tunnels) != 3 {
		t.Fatalf("tunnels %+v", cfg.Tunnels)
	}
	app, same, ssh := cfg.Tunnels[0], cfg.Tunnels[1], cfg.Tunnels[2]
	if app.Name != "app" || app.Kind != "http" || app.Upstream != "http://127.0.0.1:3000" || app.URL != "app.example.com" || !app.Compression ||
		len(app.BasicAuth) != 1 || app.BasicAuth[0].User != "dev" {
		t.Errorf("app is %+v", app)
	}
	if same.Upstream != "http://127.0.0.1:8089" || same.URL != "same.example.com" || len(same.BasicAuth) != 2 || same.Compression {
		t.Errorf("same is %+v", same)
	}
	if ssh.Upstream != "tcp://127.0.0.1:22" || ssh.Port != 20023 {
		t.Errorf("ssh is %+v", ssh)
	}

	cfg, _, err = load("tunnels:\n  app: {url: ~, basic_auth: null}\n  same: ~\n  ssh:\n    port: Null\n", "mtu: 1400\n", "mtu: ~\ntunnels:\n  ssh: {port: 20024}\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Tunnels) != 2 || cfg.MTU != 0 {
		t.Fatalf("settings %+v", cfg)
	}
	if app, ssh := cfg.Tunnels[0], cfg.Tunnels[1]; app.URL != "" || app.BasicAuth != nil || app.Upstream != "http://127.0.0.1:8089" || ssh.Port != 20024 {
		t.Errorf("app is %+v, ssh %+v", app, ssh)
	}
	if cfg, _, err := load("tunnels: ~\n"); err != nil || len(cfg.Tunnels) != 0 {
		t.Errorf("all tunnels taken away: %+v, %v", cfg.Tunnels, err)
	}
	_, files, err := load("tunnels:\n  app: {compression: ~, uppstream: ~}\n  more: ~\nproxy: ~\n")
	tells(t, err,
		files[1]+":2: tunnels.app.compression: has no value; give one or take the line out",
		files[1]+":2: tunnels.app.uppstream: unknown key",
		files[1]+":3: tunnels.more: must be a map of settings such as kind and upstream, and is empty",
		files[1]+":4: proxy: has no value",
	)

	_, files, err = load("tunnels:\n  same:\n    url: same.example.com\n    uppstream: 1\n",
		"\ntunnels:\n  app:\n    upstream: 1:2:3\n    url: same.example.com\n  ssh: {kind: http, port: 1, port: 2}\n  other: {upstream: 1}\n  none:\n")
	tells(t, err,
		files[1]+":4: tunnels.same.uppstream: unknown key",
		files[2]+":4: tunnels.app.upstream: ",
		files[2]+":6: tunnels.ssh.port: belongs to a tunnel of kind tcp; this one is http",
		files[2]+":6: tunnels.ssh.port: set twice; it is on line 6 already",
		files[2]+":7: tunnels.other.kind: missing",
		files[2]+":8: tunnels.none: must be a map of settings",
		files[1]+":3: tunnels.same.url: same.example.com is what tunnel app asks for, too",
	)
	_, files, err = load("tunnels:\n  ssh: {kind: http, url: ssh.example.com}\n  same: {url: same.example.com}\n")
	tells(t, err, files[0]+":8: tunnels.ssh.port: belongs to a tunnel of kind tcp; this one is http")
}

// tells fails the test for each text that err does not have in it.
func tells(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, want := range texts {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
}

// TestSalvage: who goes on with mistakes in files and variables has what is right, and
// defaults in place of the rest.
func TestSalvage(t *testing.T) {
	isolate(t)
	good := write(t, "mtu: 1400\nlog_level: debug\n")
	bad := write(t, "transport: pigeon\nlog_level: loud\nnope: 1\ntunnels:\n  a: {kind: http}\n  b: {kind: tcp, upstream: 22}\n")
	gone := bad + ".gone"
	t.Setenv("WGEXPOSE_PROXY", "gopher://x")
	cfg, problems, err := SalvageAgent(flagSet(t, AgentFlags, "--config", good, "--config", gone, "--config", bad, "--web-addr", "127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.MTU != 1400 || cfg.Transport != "auto" || cfg.Proxy != "" || cfg.LogLevel.String() != "WARN" || cfg.WebAddr != "127.0.0.1:1" || cfg.Tunnels != nil {
		t.Errorf("got %+v", cfg)
	}
	for i, want := range []string{gone + ": the configuration cannot be read", bad + ":1: transport", bad + ":2: log_level", bad + ":3: nope", bad + ":5: tunnels.a.upstream", "WGEXPOSE_PROXY: "} {
		if i >= len(problems) || !strings.HasPrefix(problems[i].String(), want) {
			t.Errorf("problem %d is not %q in %v", i, want, problems)
		}
	}
	if len(problems) != 6 {
		t.Errorf("%d problems", len(problems))
	}
	t.Setenv("WGEXPOSE_PROXY", "")
	if cfg, problems, err := SalvageAgent(flagSet(t, AgentFlags, "--config", write(t, "a: [\n"), "--mtu", "1300")); err != nil || len(problems) != 1 || cfg.MTU != 1300 || cfg.Transport != "auto" {
		t.Errorf("what is no YAML: %+v, %v, %v", cfg, problems, err)
	}
	var wrong *Error
	if _, _, err := SalvageAgent(flagSet(t, AgentFlags, "--config", bad, "--mtu", "7")); !errors.As(err, &wrong) || len(wrong.Problems) != 5 {
		t.Errorf("a wrong flag: %v", err)
	}
	want, err := LoadAgent(flagSet(t, AgentFlags, "--config", good))
	if cfg, problems, serr := SalvageAgent(flagSet(t, AgentFlags, "--config", good)); err != nil || serr != nil || len(problems) > 0 || !reflect.DeepEqual(cfg, want) {
		t.Errorf("without a mistake: %+v, want %+v; %v, %v", cfg, want, problems, serr)
	}
}

func TestVariablesInValues(t *testing.T) {
	isolate(t)
	t.Setenv("APP_PORT", "8089")
	t.Setenv("SECRET", "geh${eim: x")
	t.Setenv("EMPTY", "")
	cfg, err := agentText("tunnels:\n  app: {kind: http, upstream: '127.0.0.1:${APP_PORT}', basic_auth: ['me:${SECRET}', 'you:a$${b}$c']}\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Tunnels[0]; got.Upstream != "http://127.0.0.1:8089" || got.BasicAuth[0].password != "geh${eim: x" || got.BasicAuth[1].password != "a${b}$c" {
		t.Errorf("got %+v, passwords %q %q", got, got.BasicAuth[0].password, got.BasicAuth[1].password)
	}
	for text, want := range map[string]string{
		"state: ${UNSET_FOR_SURE}\n": "test.yml:1: state: the variable UNSET_FOR_SURE is not set",
		"state: ${EMPTY}\n":          "the variable EMPTY is not set",
		"state: a${\n":               "names no variable",
		"state: '${a b}'\n":          "names no variable",
		"${APP_PORT}: x\n":           "${APP_PORT}: unknown key",
	} {
		if _, err := agentText(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestShow(t *testing.T) {
	isolate(t)
	t.Setenv("APP_PORT", "8089")
	t.Setenv("WGEXPOSE_LOG_FORMAT", "json")
	file := write(t, "tunnels:\n  app: {kind: http, upstream: '${APP_PORT}', basic_auth: ['me:geheim']} # mine\n")
	flags := flagSet(t, AgentFlags, "--config", file, "--state", "/srv/x")
	out, err := ShowAgent(flags)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"state: /srv/x # --state\n", "log_level: warn # default\n", "log_format: json # WGEXPOSE_LOG_FORMAT\n",
		"tunnels:\n  app:\n    kind: http\n    upstream: 8089\n    basic_auth: ['me:********']\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no\n%s\nin\n%s", want, out)
		}
	}
	// What is shown can be read again.
	t.Setenv("WGEXPOSE_LOG_FORMAT", "")
	if cfg, err := LoadAgent(flagSet(t, AgentFlags, "--config", write(t, string(out)))); err != nil || cfg.State != "/srv/x" || len(cfg.Tunnels) != 1 {
		t.Errorf("%+v, %v", cfg, err)
	}
	if out, err := ShowEdge(flagSet(t, EdgeFlags, "--domain", "example.com")); err != nil || !strings.Contains(string(out), "domain: example.com # --domain\n") {
		t.Errorf("%s, %v", out, err)
	}
}
