import { openEngine } from '/work/main/src/engine/engine.ts';
import * as tf from '/work/main/src/engine/tf.ts';
import * as ops from '/work/main/src/ops/index.ts';
await openEngine('wasm', 0);
const [d,L,H,K,D,W,V,B,T]=[64,4,4,2,16,128,512,8,96], N=B*T;
const P:Record<string,tf.Variable>={}; const mk=(n:string,s:number[],std=0.1)=>{P[n]=tf.variable(tf.randomNormal(s,0,std),true);};
mk('emb',[V,d],1);mk('head',[V,d]);mk('fn',[d]);
for(let l=0;l<L;l++){mk(l+'n1',[d],1);mk(l+'n2',[d],1);mk(l+'q',[H*D,d]);mk(l+'k',[K*D,d]);mk(l+'v',[K*D,d]);mk(l+'o',[d,H*D]);mk(l+'g',[W,d]);mk(l+'u',[W,d]);mk(l+'d',[d,W]);}
const names=Object.keys(P); const M=16,S=24,R=4,C=3,start=Number(process.env.START??0),len=32; const rnd=(n:number,m:number)=>Int32Array.from({length:n},()=>Math.floor(Math.random()*m));
const mem={keys:tf.randomNormal([M,K,S,D]),values:tf.randomNormal([M,K,S,D]),lengths:tf.tensor1d(new Int32Array(M).fill(S),'int32'),index:tf.tensor3d(rnd(B*C*R,M),[B,C,R],'int32'),start,chunkLength:len,gradient:false};
const pos=Int32Array.from({length:T},(_, i)=>i);
const acc:Record<string,number>={};
function step(memory:boolean, stepNo:number){
 const ids=tf.tensor1d(rnd(N,V),'int32'),tg=tf.tensor1d(rnd(N,V),'int32');
 const t0=performance.now(); let t1=0;
 const f=()=>{let x=ops.embedding(ids,P.emb!);
  for(let l=0;l<L;l++){const n=ops.rmsNorm(x,P[l+'n1']!,1e-5);const h=(w:string,c:number)=>ops.linear(n,P[l+w]!).reshape([B,T,c,D]) as tf.Tensor4D;
   const a=ops.attention(ops.rope(h('q',H),pos,1e4),ops.rope(h('k',K),pos,1e4),h('v',K),memory&&l<3?mem:undefined);
   x=tf.add(x,ops.linear(a.out.reshape([N,H*D]),P[l+'o']!)); const m=ops.rmsNorm(x,P[l+'n2']!,1e-5);
   x=tf.add(x,ops.linear(ops.swiglu(ops.linear(m,P[l+'g']!),ops.linear(m,P[l+'u']!)),P[l+'d']!));}
  const s=ops.crossEntropy(ops.rmsNorm(x,P.fn!,1e-5),P.head!,tg).sum; t1=performance.now(); return s;};
 const {value,grads}=tf.variableGrads(f as any); const t2=performance.now();
 const norm=tf.tidy(()=>ops.globalNorm(Object.values(grads))); norm.dataSync(); const t3=performance.now();
 for(const n of names){const p=P[n]!;const g=grads[p.name]!;const st=state[n]!;const [np,nm,nv]=ops.adamw(p,g,st[0]!,st[1]!,{lr:1e-3,beta1:.9,beta2:.98,epsilon:1e-8,weightDecay:.05,step:stepNo,gradScale:1/N});p.assign(np);tf.dispose([np,...st]);state[n]=[nm,nv];}
 const t4=performance.now(); tf.dispose([value,grads,norm,ids,tg]); return [t1-t0,t2-t1,t3-t2,t4-t3,t4-t0];}
const state:Record<string,tf.Tensor[]>=Object.fromEntries(names.map(n=>[n,[tf.zeros(P[n]!.shape),tf.zeros(P[n]!.shape)]]));
for(const memory of [false,true]){ const rows:number[][]=[]; let k=1; for(let i=0;i<10;i++) step(memory,k++); const t0=tf.memory().numTensors,b0=tf.memory().numBytes; const c0=process.cpuUsage().user; for(let i=0;i<40;i++) rows.push(step(memory,k++)); console.log('cpu ms per step',((process.cpuUsage().user-c0)/40000).toFixed(1));
 const q=(c:number,p:number)=>rows.map(r=>r[c]!).sort((a,b)=>a-b)[Math.floor(p*rows.length)]!.toFixed(1);
 console.log(memory?'memories':'plain','min/med ms: fwd',q(0,0),q(0,.5),'bwd',q(1,0),q(1,.5),'norm',q(2,0),q(2,.5),'adam',q(3,0),q(3,.5),'total',q(4,0),q(4,.5),'tensors',t0,tf.memory().numTensors,'bytes',b0-tf.memory().numBytes);}
if(process.env.PROF){ for(const memory of [false,true]){ const pr=await tf.profile(()=>{step(memory,100);return tf.scalar(0);}); const by:Record<string,[number,number]>={}; for(const k of pr.kernels){const e=by[k.name]??=[0,0];e[0]+=k.kernelTimeMs as number;e[1]++;} console.log(memory, Object.entries(by).sort((a,b)=>b[1][0]-a[1][0]).slice(0,28).map(([n,[t,c]])=>`${n} ${t.toFixed(2)}ms x${c}`).join('\n'));}}
