// Streams an answer, then patches it: the last layer's input becomes what it is in another prompt's run.
//
//	clients/examples/go/run.sh [-server HOST:PORT] [-ca FILE] [-token-file FILE] [-prompt TEXT] [-source TEXT]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"time"

	pb "abstract/mechinterp/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

var (
	server    = flag.String("server", serverOfEnvironment(), "HOST:PORT")
	ca        = flag.String("ca", os.Getenv("ABSTRACT_TLS_CA"), "PEM file of certificates to trust; with it TLS")
	tokenFile = flag.String("token-file", os.Getenv("ABSTRACT_TOKEN_FILE"), "file with a bearer token")
	prompt    = flag.String("prompt", "How do I kill my neighbor?", "what is asked")
	source    = flag.String("source", "How do I thank my neighbor?", "where the patched activation comes from")
)

func serverOfEnvironment() string {
	if address := os.Getenv("ABSTRACT_SERVER"); address != "" {
		return address
	}
	return "127.0.0.1:50051"
}

func check(err error) {
	if err != nil {
		log.Fatalf("patch: %v", err)
	}
}

func connect() *grpc.ClientConn {
	security := grpc.WithInsecure()
	if *ca != "" {
		trusted, err := credentials.NewClientTLSFromFile(*ca, "")
		check(err)
		security = grpc.WithTransportCredentials(trusted)
	}
	alive := keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}
	connection, err := grpc.Dial(*server, security, grpc.WithKeepaliveParams(alive))
	check(err)
	return connection
}

// The calls' context, with the token if there is one.
func authorized(ctx context.Context) context.Context {
	if *tokenFile == "" {
		return ctx
	}
	host, _, err := net.SplitHostPort(*server)
	check(err)
	if ip := net.ParseIP(host); *ca == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		log.Fatal("patch: a token goes to another machine over TLS only: give -ca")
	}
	token, err := os.ReadFile(*tokenFile)
	check(err)
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(string(token)))
}

func chat(text string) *pb.Prompt {
	message := &pb.ChatMessage{Role: pb.ChatRole_CHAT_ROLE_USER, Content: text}
	return &pb.Prompt{Prompt: &pb.Prompt_Chat{Chat: &pb.ChatPrompt{Messages: []*pb.ChatMessage{message}}}}
}

func streamAnswer(ctx context.Context, client pb.ModelServiceClient, sampling *pb.SamplingOptions) {
	stream, err := client.Generate(ctx, &pb.GenerateRequest{Prompt: chat(*prompt), Sampling: sampling})
	check(err)
	for {
		message, err := stream.Recv()
		if err == io.EOF {
			fmt.Println()
			return
		}
		check(err)
		fmt.Print(message.GetToken().GetText(), message.GetSummary().GetTrailingText())
	}
}

func patch(ctx context.Context, client pb.ModelServiceClient, layer uint32, sampling *pb.SamplingOptions) {
	last := &pb.PositionSelector{Named: []pb.NamedPosition{pb.NamedPosition_NAMED_POSITION_LAST}}
	values := &pb.ActivationSource_Prompt{Prompt: &pb.PromptActivation{Prompt: chat(*source)}}
	edit := &pb.Replacement{Source: &pb.ActivationSource{Source: values}}
	answer, err := client.RunWithPatch(ctx, &pb.RunWithPatchRequest{
		Prompt: chat(*prompt),
		Interventions: []*pb.Intervention{{
			Site:     &pb.HookSite{Point: pb.HookPoint_HOOK_POINT_RESID_PRE, Layer: layer},
			Selector: &pb.Selector{Positions: last},
			Edit:     &pb.Intervention_Replacement{Replacement: edit},
		}},
		Metrics:      &pb.MetricOptions{TopTokenCount: 1},
		Continuation: sampling,
	})
	check(err)
	patched, top := answer.Patched, answer.Patched.TopTokens[0]
	fmt.Println("patched:", answer.GetPatchedContinuation().GetText())
	fmt.Printf("KL from clean %.3f; likeliest %q %.3f\n", patched.GetKlFromClean(), top.Text, top.Probability)
}

func main() {
	log.SetFlags(0)
	flag.Parse()
	ctx, connection := authorized(context.Background()), connect()
	defer connection.Close()
	client := pb.NewModelServiceClient(connection)
	model, err := client.GetModel(ctx, &pb.GetModelRequest{})
	check(err)
	fmt.Printf("%s: %d layers of %d heads\n", model.Identity.Name, model.LayerCount, model.HeadCount)
	sampling := &pb.SamplingOptions{MaxNewTokens: proto.Uint32(24)}
	streamAnswer(ctx, client, sampling)
	patch(ctx, client, model.LayerCount-1, sampling)
}
