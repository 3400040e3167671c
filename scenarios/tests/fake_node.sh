#!/bin/sh
# A stand-in for a node: reports what a node would, and misbehaves as its backbone's config.json says.
hash() { printf '%010d%054d' "$1" 0; }

if [ "$1" = tokenizer ]; then
    [ -f "$2/tokenizer.json" ] || { echo "error: there is no tokenizer.json" >&2; exit 1; }
    printf '{"digest":"%s","tokens":512,"more":"x"}\n' "$(hash 5)"
    exit
fi
arguments=$*
while [ $# -gt 0 ]; do
    case $1 in
        --state) state=$2; shift ;;
        --charter) rounds=$(sed -n 's/^total = //p' "$2"); shift ;;
        --backbone) behaviour=$(cat "$2/config.json"); shift ;;
        --scenario) name=${2#*/}; shift ;;
        --peer) peer=$2; shift ;;
        --alone) alone=yes ;;
    esac
    shift
done

say() { printf '{"time_ms":1,"event":"%s"}\n' "$1" >> "$state/events.jsonl"; }
score() { printf '"global":%s,"own":%s' "$1" "$2"; }
if [ "$behaviour" = writes ]; then
    alone_score=$(score 40.0 30.0) start=$(score 100.0 90.0) first=$(score 36.0 30.0)
    last=$(score 50.0 31.0)
else
    alone_score=$(score 0.3 0.9) start=$(score 0.7 0.9) first=$(score 0.8 0.95)
    last=$first
fi

echo $$ > "$state/pid"
echo "peer: $peer"
echo "arguments: $arguments"
say 'started","name":"'"$name"'","pid":"'$$
say 'listening","address":"/ip4/127.0.0.1/tcp/1/p2p/'"$name"
say 'listening","address":"/ip4/127.0.0.1/udp/1/quic-v1/p2p/'"$name"
say 'backbone","model_type":"vit","width":32,"depth":2,"parameters":1000,"shared_parameters":50,"samples":4,"classes":["0","1"],"x":"'
[ "$behaviour" = dies ] && { echo 'reading the weights' >&2; echo 'the weights are corrupt' >&2; exit 3; }
[ "$behaviour" = fails ] && { say 'error","message":"the disk is full'; exit 1; }
[ "$behaviour" = babbles ] && echo 'no event' >> "$state/events.jsonl"
say 'connected","peer":"x","address":"y'
[ "$alone" ] && say 'alone","chosen":"head",'"$alone_score"',"best_of":{"head":{'"$alone_score"'}},"x":"'
say 'aligned","fit":[0.9,0.95],"x":"'
say 'genesis","genesis_id":"'"$(hash 7)"
say 'evaluated","round":0,'"$start"',"x":"'
[ "$behaviour" = writes ] && say 'sample","when":"before","prompt":"ROMEO:","text":" once upon'
scores=$first
round=0
while [ $round -lt "$rounds" ]; do
    round=$((round + 1))
    [ "$behaviour" = waits ] && say 'deadline_missed","round":1,"missing":["'"$(hash 1)"'"],"x":"'
    mixture=$(hash $round)
    [ "$behaviour" = differs ] && [ $round = 2 ] && mixture=$(hash 99)
    say 'trained","round":'$round',"loss":0.5,"x":"'
    say 'round_closed","round":'$round',"updates":3,"update_norm":1.0,"branch_norm":0.5,"agreement":0.1,"left_out":[],"mixture_hash":"'"$mixture"'","bytes_out":'$((round * 100))',"bytes_in":90,"x":"'
    say 'evaluated","round":'$round','"$scores"',"x":"'
    scores=$last
done
[ "$behaviour" = writes ] && say 'sample","when":"after","prompt":"ROMEO:","text":" thou art'
say 'finished","rounds":'"$rounds"',"mixture_hash":"'"$mixture"'","bytes_out":300,"bytes_in":290,"peak_rss_bytes":1000,"x":"'
# Until stdin closes.
while read -r _; do :; done
