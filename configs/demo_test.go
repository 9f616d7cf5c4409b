package configs

import (
	"errors"
	"testing"

	"github.com/spf13/pflag"
)

func TestDemoReadsFlagsAlone(t *testing.T) {
	isolate(t)
	t.Setenv("WGEXPOSE_LISTEN_HTTPS", "nonsense")
	t.Setenv(configVariable, "/does/not/exist")
	add := func(flags *pflag.FlagSet) { DemoFlags(flags, "127.0.0.1:8443") }
	cfg, err := LoadDemo(flagSet(t, add))
	if err != nil || cfg.ListenHTTPS.String() != "127.0.0.1:8443" {
		t.Errorf("%+v, %v", cfg, err)
	}
	cfg, err = LoadDemo(flagSet(t, add, "--listen-https", "[::1]:0"))
	if err != nil || cfg.ListenHTTPS.String() != "[::1]:0" {
		t.Errorf("%+v, %v", cfg, err)
	}
	_, err = LoadDemo(flagSet(t, add, "--listen-https", "off", "--log-level", "x"))
	var problems *Error
	if !errors.As(err, &problems) || len(problems.Problems) != 2 || !problems.Usage() {
		t.Errorf("err = %v", err)
	}
}
