package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
)

// prometheusClient asks one server, within the limits of the options.
type prometheusClient struct {
	http    *http.Client
	api     promv1.API
	timeout time.Duration
}

func newPrometheusClient(o PrometheusOptions) (*prometheusClient, error) {
	transport, err := promconfig.NewRoundTripperFromConfig(httpConfig(o), "netlatency",
		promconfig.WithDialContextFunc((&net.Dialer{Timeout: o.Timeout}).DialContext),
		promconfig.WithIdleConnTimeout(idleTimeout),
	)
	if err != nil {
		return nil, err
	}
	c := &prometheusClient{timeout: o.Timeout}
	c.http = &http.Client{
		Transport: limitedTransport{transport, o.MaxBytes},
		// A token is for the server that was named.
		CheckRedirect: func(to *http.Request, _ []*http.Request) error {
			return fmt.Errorf("%w to %s, and is not followed: give the address that answers", errRedirected, to.URL.Redacted())
		},
	}
	client, err := api.NewClient(api.Config{Address: o.Address, Client: c.http})
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	c.api = promv1.NewAPI(client)
	return c, nil
}

// httpConfig is the options as Prometheus itself configures its clients.
func httpConfig(o PrometheusOptions) promconfig.HTTPClientConfig {
	c := promconfig.HTTPClientConfig{
		EnableHTTP2: true,
		TLSConfig: promconfig.TLSConfig{
			CAFile: o.TLS.CAFile, CertFile: o.TLS.CertFile, KeyFile: o.TLS.KeyFile,
			ServerName: o.TLS.ServerName, InsecureSkipVerify: o.TLS.InsecureSkipVerify,
		},
	}
	if o.BearerTokenFile != "" {
		c.Authorization = &promconfig.Authorization{Type: "Bearer", CredentialsFile: o.BearerTokenFile}
	}
	if len(o.Headers) > 0 {
		headers := make(map[string]promconfig.Header, len(o.Headers))
		for name, value := range o.Headers {
			headers[name] = promconfig.Header{Values: []string{value}}
		}
		c.HTTPHeaders = &promconfig.Headers{Headers: headers}
	}
	return c
}

// instant asks one query at a time of the server, its own when at is zero.
// partial is whether it warned that the answer may lack something.
func (c *prometheusClient) instant(ctx context.Context, promQL string, at time.Time) (vector model.Vector, partial bool, _ Failure, _ error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	value, warnings, err := c.api.Query(ctx, promQL, at, promv1.WithTimeout(c.timeout))
	if err != nil {
		return nil, false, failureOf(ctx, err), err
	}
	vector, ok := value.(model.Vector)
	if !ok {
		return nil, false, FailureDecode, fmt.Errorf("it returns %s: want an instant vector, with a series for each pair", typeOf(value))
	}
	return vector, len(warnings) > 0, "", nil
}

func typeOf(value model.Value) string {
	if value == nil {
		return "nothing"
	}
	return "a " + value.Type().String()
}

func failureOf(ctx context.Context, err error) Failure {
	var (
		answer  *promv1.Error
		request *url.Error
		network net.Error
	)
	switch {
	case errors.Is(err, errAnswerTooLarge):
		return FailureLimit
	case errors.Is(err, errRedirected):
		return FailureStatus
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded):
		return FailureTimeout
	case errors.As(err, &request), errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF):
		return FailureConnect
	case !errors.As(err, &answer): // what came is no answer of the API
		return FailureDecode
	}
	// A server that gave up says so in the body of a status 503.
	var body struct {
		Type promv1.ErrorType `json:"errorType"`
	}
	if answer.Type == promv1.ErrServer && json.Unmarshal([]byte(answer.Detail), &body) == nil && body.Type != "" {
		answer.Type = body.Type
	}
	switch answer.Type {
	case promv1.ErrTimeout, promv1.ErrCanceled:
		return FailureTimeout
	case promv1.ErrBadData, promv1.ErrExec:
		return FailureQuery
	case promv1.ErrBadResponse:
		return FailureDecode
	}
	return FailureStatus
}

var (
	errAnswerTooLarge = errors.New("the answer exceeds maxBytes")
	errRedirected     = errors.New("the server redirects")
)

// limitedTransport fails a read of an answer beyond a number of bytes, after
// the transport has unpacked it.
type limitedTransport struct {
	http.RoundTripper
	bytes int64
}

// RoundTrip implements http.RoundTripper.
func (t limitedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.RoundTripper.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	response.Body = &limitedBody{bounded{r: response.Body, left: t.bytes, err: errAnswerTooLarge}, response.Body}
	return response, nil
}

// CloseIdleConnections lets http.Client reach that of the transport.
func (t limitedTransport) CloseIdleConnections() {
	if transport, ok := t.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		transport.CloseIdleConnections()
	}
}

type limitedBody struct {
	bounded
	body io.Closer
}

// Close closes the body itself.
func (b *limitedBody) Close() error { return b.body.Close() }
