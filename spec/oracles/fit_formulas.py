# Where the coefficients of kernels/formulas.h come from: minimax fits (iteratively reweighted least squares) with numpy.
# Run: /usr/bin/python3 spec/oracles/fit_formulas.py     exp: degree 5; tanh: degree 5; Q (gelu's tail): p = 0.3, degree 7
import numpy as np
from math import erfc, sqrt, exp
np.set_printoptions(precision=10)
# 2^? exp(r) on [-ln2/2, ln2/2]: 1 + r + r^2 * P(r)
def wlsq(A, y, w, it=60):
    # iteratively reweighted (Lawson) minimax
    lw=np.ones(len(y))
    for _ in range(it):
        W=np.sqrt(lw)*w
        c,*_=np.linalg.lstsq(A*W[:,None], y*W, rcond=None)
        e=np.abs((A@c-y)*w); lw*= (e+1e-18); lw/=lw.sum()
    return c, e.max()
n=4001
r=0.35*np.cos(np.pi*(np.arange(n)+.5)/n)
f=np.where(np.abs(r)<1e-4, .5+r/6+r*r/24, (np.expm1(r)-r)/np.where(r==0,1,r*r))
for d in (4,5):
    c,e=wlsq(np.vander(r,d+1,increasing=True), f, r*r/np.exp(r)); print("exp",d,e,[float(np.float32(v)) for v in c])
# tanh small: tanh(x)= x + x z P(z), z=x^2, |x|<0.65
x=0.66*(np.cos(np.pi*(np.arange(n)+.5)/n)+1)/2+1e-3; z=x*x
f=(np.tanh(x)/x-1)/z
for d in (4,5):
    c,e=wlsq(np.vander(z,d+1,increasing=True), f, z*x/np.tanh(x)); print("tanh",d,e,[float(np.float32(v)) for v in c])
# upper tail Q(a)=0.5 erfc(a/sqrt2) = exp(-a^2/2) t P(t), t=1/(1+p a)
a=13*(np.cos(np.pi*(np.arange(n)+.5)/n)+1)/2
Q=np.array([0.5*erfc(v/sqrt(2)) for v in a]); s=Q*np.exp(a*a/2)
for p in (0.2,0.23,0.25,0.28,0.3,0.35,):
  t=1/(1+p*a)
  for d in (5,6,7):
    A=np.vander(t,d+1,increasing=True)*t[:,None]
    c,e=wlsq(A, s, 1/s,200); print("Q",p,d,e,[float(np.float32(v)) for v in c])
# sin(r) = r + r z S(z), cos(r) = 1 - z/2 + z^2 C(z), z = r^2, |r| <= pi/4 (kernels/ops.h)
r=np.pi/4*1.001*(np.cos(np.pi*(np.arange(n)+.5)/n)+1)/2+2e-3; z=r*r
c,e=wlsq(np.vander(z,3,increasing=True), (np.sin(r)/r-1)/z, z*r/np.sin(r)); print("sin",2,e,[float(np.float32(v)) for v in c])
c,e=wlsq(np.vander(z,3,increasing=True), (np.cos(r)-1+z/2)/z**2, z**2/np.cos(r)); print("cos",2,e,[float(np.float32(v)) for v in c])
# log(1+f) = f - f^2/2 + f^3 P(f) on [sqrt(1/2)-1, sqrt(2)-1]
f=(np.sqrt(.5)-1)+(np.sqrt(2)-np.sqrt(.5))*(np.cos(np.pi*(np.arange(n)+.5)/n)+1)/2; f=f[np.abs(f)>1e-2]
for d in (6,7,8):
    c,e=wlsq(np.vander(f,d+1,increasing=True), (np.log1p(f)-f+f*f/2)/f**3, f**3/np.log1p(f)); print("log",d,e,[float(np.float32(v)) for v in c])
