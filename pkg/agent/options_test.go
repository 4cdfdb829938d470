package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
)

func TestTheEnvironmentOfAPodIsEnough(t *testing.T) {
	t.Setenv("NODE_NAME", "node-1")
	t.Setenv("POD_NAMESPACE", "netlatency")
	for _, test := range []struct {
		name, ips, ip string
		want          []string
	}{
		{"one address", "10.0.0.1", "", []string{"10.0.0.1"}},
		{"one of each family", "fd00::1,10.0.0.1", "fd00::1", []string{"fd00::1", "10.0.0.1"}},
		{"a manifest that sets POD_IP only", "", "10.0.0.1", []string{"10.0.0.1"}},
	} {
		t.Setenv("POD_IPS", test.ips)
		t.Setenv("POD_IP", test.ip)
		o := DefaultOptions()
		if err := o.Validate(); err != nil {
			t.Errorf("%s: the defaults in a pod are refused: %v", test.name, err)
		}
		if diff := cmp.Diff(test.want, o.BindAddresses); diff != "" {
			t.Errorf("%s: addresses (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestTheDefaultWindowsFitTheShortestInterval(t *testing.T) {
	o := testOptions()
	o.Interval, o.Spacing = minInterval, 10*ms
	if err := o.Validate(); err != nil {
		t.Errorf("refused: %v", err)
	}
}

func TestFlagsSetOptions(t *testing.T) {
	o := testOptions()
	var sets cliflag.NamedFlagSets
	o.AddFlags(&sets)
	all := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	for _, name := range sets.Order {
		all.AddFlagSet(sets.FlagSets[name])
	}
	err := all.Parse(strings.Fields(`--node-name n --namespace ns --service s --targets-service t --bind-address fd00::1,10.0.0.1 --http-port 1 --probe-port 2
		--interval 3s --burst 4 --spacing 5ms --timeout 6s --window 7m --loss-window 8m --max-peers 9 --packets-per-second 10 --methods tcp,udp --full-size 1300 --max-series 8 --sample-stream`))
	if err != nil {
		t.Fatal(err)
	}
	want := Options{
		NodeName: "n", Namespace: "ns", Service: "s", TargetsService: "t", BindAddresses: []string{"fd00::1", "10.0.0.1"}, HTTPPort: 1, ProbePort: 2,
		Interval: 3 * time.Second, Burst: 4, Spacing: 5 * ms, Timeout: 6 * time.Second,
		Window: 7 * time.Minute, LossWindow: 8 * time.Minute, MaxPeers: 9, PacketsPerSecond: 10, SampleStream: true,
		Methods: []string{"tcp", "udp"}, FullSize: 1300, MaxSeries: 8,
	}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	if err := o.Validate(); err != nil {
		t.Errorf("they are refused: %v", err)
	}
}

func TestFaultsInOptionsAreAllSaidAtOnce(t *testing.T) {
	tests := map[string]struct {
		change func(*Options)
		want   []string // the faults, a line each, or how they start
	}{
		"nothing is known of the pod": {
			change: func(o *Options) { o.NodeName, o.Namespace, o.BindAddresses = "", "", nil },
			want: []string{
				"--node-name is empty: give it or set NODE_NAME to the pod's spec.nodeName",
				"--namespace is empty: give it or set POD_NAMESPACE to the pod's metadata.namespace",
				"--bind-address is empty: give it or set POD_IPS to the pod's status.podIPs",
			},
		},
		"names that Kubernetes does not give": {
			change: func(o *Options) { o.NodeName, o.Namespace, o.Service = "Node_1", "a.b", "" },
			want: []string{
				`--node-name is "Node_1": want a Kubernetes name: `,
				`--namespace is "a.b": want a Kubernetes name: `,
				"--service is empty: give it",
			},
		},
		"targets that would be taken for agents": {
			change: func(o *Options) { o.TargetsService = o.Service },
			want:   []string{`--targets-service is "netlatency-agent": want another name than --service, or targets would be taken for agents`},
		},
		"numbers out of range": {
			change: func(o *Options) {
				o.BindAddresses = []string{"node-1"}
				o.HTTPPort, o.ProbePort = 0, 70000
				o.Timeout, o.MaxPeers, o.PacketsPerSecond = 0, 0, 20_000
			},
			want: []string{
				`--bind-address is "node-1": want an IP address, or one of each family, for instance 10.0.0.7,fd00::7`,
				"--http-port is 0: want 1 to 65535",
				"--probe-port is 70000: want 1 to 65535",
				"--timeout is 0s: want 10ms to 10s",
				"--max-peers is 0: want 1 to 5000",
				"--packets-per-second is 20000: want 1 to 10000",
			},
		},
		"two addresses of a family": {
			change: func(o *Options) { o.BindAddresses = []string{"fd00::1", "10.0.0.1", "::ffff:10.0.0.2"} },
			want:   []string{`--bind-address is "fd00::1,10.0.0.1,::ffff:10.0.0.2": want an IP address, or one of each family, for instance 10.0.0.7,fd00::7`},
		},
		"an address and nothing": {
			change: func(o *Options) { o.BindAddresses = []string{"10.0.0.1", ""} },
			want:   []string{`--bind-address is "10.0.0.1,": want an IP address, or one of each family, for instance 10.0.0.7,fd00::7`},
		},
		"a method that there is not, and numbers out of range": {
			change: func(o *Options) { o.Methods, o.FullSize, o.MaxSeries = []string{"udp", "http"}, 2000, -1 },
			want: []string{
				`--methods is "udp,http": want one or more of udp, icmp, tcp, portable, each once`,
				"--full-size is 2000: want 0, or 128 to 1472",
				"--max-series is -1: want 1 to 50000000",
			},
		},
		"a method twice": {
			change: func(o *Options) { o.Methods = []string{"udp", "udp"} },
			want:   []string{`--methods is "udp,udp": want one or more of udp, icmp, tcp, portable, each once`},
		},
		"no method": {
			change: func(o *Options) { o.Methods = nil },
			want:   []string{"--methods is empty: want one or more of udp, icmp, tcp, portable, each once"},
		},
		"a burst that does not fit its interval": {
			change: func(o *Options) { o.Interval, o.Burst, o.Spacing = time.Second, 11, 100*ms },
			want:   []string{"--spacing is 100ms: want at most 50ms, so that a burst of 11 ends within half of --interval 1s"},
		},
		"a window too short to see a change of path": {
			change: func(o *Options) { o.Window = 20 * time.Second },
			want:   []string{"--window is 20s: want 30s to 13h53m20s"},
		},
		"a loss window shorter than the window": {
			change: func(o *Options) { o.LossWindow = time.Minute },
			want:   []string{"--loss-window is 1m0s: want 5m0s to 55h33m20s"},
		},
		"a loss window that would take all memory": {
			change: func(o *Options) { o.LossWindow = 100 * time.Hour },
			want:   []string{"--loss-window is 100h0m0s: want 5m0s to 55h33m20s"},
		},
		"the windows are judged although the interval is wrong": {
			change: func(o *Options) { o.Interval, o.Burst, o.LossWindow = time.Millisecond, 0, time.Second },
			want: []string{
				"--interval is 1ms: want 100ms to 1h0m0s",
				"--burst is 0: want 1 to 64",
				"--loss-window is 1s: want 5m0s to 24h0m0s",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := testOptions()
			test.change(&o)
			err := o.Validate()
			if err == nil {
				t.Fatal("accepted")
			}
			got := strings.Split(err.Error(), "\n")
			for i, want := range test.want {
				if i < len(got) && strings.HasSuffix(want, ": ") && strings.HasPrefix(got[i], want) {
					got[i] = want
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}
