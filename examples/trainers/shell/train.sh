#!/bin/sh
# Fits y = a x + b to points by gradient descent. The state is a file with a and b: any program that
# can keep its state in a file is trained like this.
set -eu

checkpoint=$(pipe job get scratch)/line
start=$(pipe job get start)
rate=$(pipe job get settings.rate)

line="0 0"
if [ -n "$start" ]; then line=$(cat "$start"); fi
trap : TERM # the epoch is finished, and the answer says that the end was asked for

for epoch in $(pipe job epochs); do
  result=$(awk -v line="$line" -v rate="$rate" '
    BEGIN { split(line, at, " "); a = at[1]; b = at[2] }
    { error = a * $1 + b - $2; da += error * $1; db += error; loss += error * error }
    END { printf "%.17g %.17g %.9g", a - rate * da / NR, b - rate * db / NR, loss / NR }
  ' points.txt)
  line=${result% *}
  echo "$line" >"$checkpoint"
  code=0
  pipe job epoch "$epoch" --metric "loss=${result##* }" --checkpoint "$checkpoint" >/dev/null || code=$?
  case $code in
    0) ;;
    75) exit 0 ;; # a stop was asked for, and this epoch is saved
    *) exit 1 ;;
  esac
done
