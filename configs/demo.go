package configs

import (
	"log/slog"

	"github.com/spf13/pflag"
)

// Demo is what the demo can be told. It reads no file and no environment, so
// that it works the same on every machine.
type Demo struct {
	ListenHTTPS Listen
	LogLevel    slog.Level
	LogFormat   LogFormat
}

func demoSettings(address string) []setting {
	return []setting{
		{"listen_https", address, "`ADDRESS` for HTTPS; when the default is taken, the next free port"},
		{"log_level", "error", "least important `LEVEL` that is logged to stderr: debug, info, warn, error"},
		{"log_format", "text", "`FORMAT` of log lines: text, json"},
	}
}

// DemoFlags adds the flags that LoadDemo reads. address is where the demo
// listens when nothing else is said.
func DemoFlags(flags *pflag.FlagSet, address string) {
	for _, s := range demoSettings(address) {
		flags.String(s.flag(), s.value, s.usage)
	}
}

// LoadDemo reads the flags that DemoFlags added.
func LoadDemo(flags *pflag.FlagSet) (Demo, error) {
	m := &merged{document: &document{}, settings: demoSettings(""), flags: flags}
	cfg := Demo{
		ListenHTTPS: fromFlag(m, "listen_https", parseListen),
		LogLevel:    fromFlag(m, "log_level", parseLogLevel),
		LogFormat:   fromFlag(m, "log_format", parseLogFormat),
	}
	return cfg, m.err()
}

func fromFlag[T any](m *merged, key string, parse func(string) (T, error)) T {
	flag := m.lookup(setting{key: key})
	out, err := parse(flag.Value.String())
	if err != nil {
		m.problems = append(m.problems, Problem{Place: "--" + flag.Name, Key: key, Message: err.Error(), flag: true})
	}
	return out
}
